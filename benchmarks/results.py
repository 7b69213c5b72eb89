"""Result files: JSON with a schema, the environment and a checksum over the rows, and the same rows as CSV.

The checksum is against accidents (half a file, an edited figure), not against forgery. A file is replaced as
a whole, by renaming, so that an interrupted run leaves the last complete one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = "effnet_fast.benchmarks/1"

#: First columns of the CSV in their order; others follow in the order in which they occur. A row may lack
#: some.
COLUMNS = (
    "model", "phi", "image_size", "batch", "dtype", "gmacs", "note", "peer", "label", "group",
    "status", "reason", "images_per_second", "median_ms", "p20_ms", "p80_ms", "best_ms", "spread",
    "rounds", "calls", "error_usage", "relative_l2", "relative_l2_allowed", "max_error", "max_allowed",
    "prepare_seconds", "activation_mib",
)  # fmt: skip


class ResultError(ValueError):
    """A result file that cannot be used; the message names the file and the reason."""


@dataclass
class Results:
    """Contents of a result file. `rows` are flat dictionaries, one for each peer in each case."""

    kind: str
    environment: dict[str, object]
    settings: dict[str, object]
    command: str
    rows: list[dict[str, object]] = field(default_factory=list)

    def of_case(self, key: str) -> list[dict[str, object]]:
        """Rows of the case with this key."""
        return [row for row in self.rows if row["case"] == key]

    def put(self, rows: list[dict[str, object]]) -> None:
        """Add `rows`, replacing those of the same case and peer."""
        new = {(row["case"], row["peer"]) for row in rows}
        self.rows = [row for row in self.rows if (row["case"], row["peer"]) not in new] + rows


def checksum(rows: list[dict[str, object]]) -> str:
    """SHA-256 over the rows in canonical JSON."""
    text = json.dumps(rows, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def save(results: Results, path: Path) -> None:
    """Write `path` (JSON) and the CSV beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": SCHEMA,
        "kind": results.kind,
        "command": results.command,
        "environment": results.environment,
        "settings": results.settings,
        "checksum": checksum(results.rows),
        "rows": results.rows,
    }
    _replace(path, json.dumps(document, indent=1) + "\n")
    temporary = path.with_suffix(".csv.partial")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns_of(results.rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(results.rows)
    os.replace(temporary, path.with_suffix(".csv"))


def columns_of(rows: Sequence[dict[str, object]]) -> list[str]:
    """Every column of `rows`: those of `COLUMNS` first, in their order."""
    present = dict.fromkeys(key for row in rows for key in row)
    return [name for name in COLUMNS if name in present] + [name for name in present if name not in COLUMNS]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def load(path: Path, *, kind: str | None = None) -> Results:
    """Read a result file.

    Raises:
        ResultError: it is missing, unreadable, not JSON, of another schema or kind, incomplete, or its rows
            do not match its checksum.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path}: there is no such result file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"{path}: damaged result file ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise ResultError(f"{path}: schema is {found!r}; allowed: {SCHEMA!r}")
    if kind is not None and document.get("kind") != kind:
        raise ResultError(f"{path}: holds results of kind {document.get('kind')!r}; needed: {kind!r}")
    rows = document.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ResultError(f"{path}: damaged result file (it has no rows)")
    if document.get("checksum") != checksum(rows):
        raise ResultError(f"{path}: damaged result file (its rows do not match its checksum)")
    try:
        return Results(
            kind=document["kind"],
            environment=document["environment"],
            settings=document["settings"],
            command=document["command"],
            rows=rows,
        )
    except KeyError as error:
        raise ResultError(f"{path}: damaged result file (it lacks {error})") from error
