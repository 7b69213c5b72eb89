"""What `make gpu` leaves: gpu.json, gpu.csv, and a table that fits on two screens."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.machine import Machine
from benchmarks.gpu.steps import Outcome, one_line

SCHEMA = "effnet_fast.gpu/1"

#: Lines of the table, and characters of each.
MOST_LINES = 96
WIDTH = 160


def save(machine: Machine, outcomes: Sequence[Outcome], out: Path) -> None:
    """Replace both files."""
    document = {
        "schema": SCHEMA,
        "machine": asdict(machine),
        "steps": [asdict(outcome) for outcome in outcomes],
    }
    rows = [{"step": outcome.step, **row} for outcome in outcomes for row in outcome.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or ["step"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, content in {
        "gpu.json": json.dumps(document, indent=1) + "\n",
        "gpu.csv": text.getvalue(),
    }.items():
        temporary = out / f"{name}.partial"
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, out / name)


def table(machine: Machine, outcomes: Sequence[Outcome], out: Path) -> list[str]:
    """A line for each step and below it its details, as many as all steps together leave room for."""
    title = f"{machine.gpu}, sm {machine.capability}, driver {machine.driver}, PyTorch {machine.torch}"
    lines = ["", "no GPU" if machine.reason else title]
    room = MOST_LINES - len(lines) - 1 - len(outcomes)
    shares = _shares([len(outcome.details) for outcome in outcomes], room)
    for outcome, share in zip(outcomes, shares, strict=True):
        took = f" ({outcome.seconds:.0f} s)" if outcome.seconds >= 1 else ""
        lines.append(one_line(f"{outcome.step}: {outcome.status}: {outcome.summary}{took}", width=WIDTH))
        details = outcome.details
        if len(details) > share:
            details = [*details[: share - 1], f"... {len(details) - share + 1} more lines"] if share else []
        lines += [f"  {line}"[:WIDTH] for line in details]
    return [*lines, f"written: {out}/gpu.json, gpu.csv and a log of each step"]


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Lines for each step: all that it wants while that fits, else the longest give way."""
    shares = list(wanted)
    while sum(shares) > room:
        shares[shares.index(max(shares))] -= 1
    return shares
