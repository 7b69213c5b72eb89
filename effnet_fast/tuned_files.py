"""Files of what was measured on a device: one a device, in the package or in a folder of the user's.

A file that cannot be trusted is an error that names it: an ignored one would look like a slow GPU.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DIRECTORY_VARIABLE", "TunedFiles"]

#: Names the folder whose files win over those of the package.
DIRECTORY_VARIABLE = "EFFNET_FAST_TUNED_DIR"


@dataclass(frozen=True)
class TunedFiles:
    """One kind of such files: JSON with a schema, a device, versions and entries.

    Attributes:
        schema: of these files.
        what: they hold, for messages.
        ending: of their names.
        error: that is raised for one that cannot be used.
    """

    schema: str
    what: str
    ending: str
    error: type[ValueError]

    def name(self, device: str) -> str:
        """``NVIDIA H200`` gives ``nvidia-h200`` and the ending."""
        return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + self.ending

    def find(self, device: str, packaged: Path, given: str | None) -> Path | None:
        """The file of `device`: in `given`, the value of the variable, else in `packaged`; None without one.

        Raises: `error` where there is no such folder.
        """
        folders = [packaged]
        if given:
            if not Path(given).is_dir():
                raise self.error(f"{DIRECTORY_VARIABLE}={given}: there is no such folder")
            folders.insert(0, Path(given))
        return next((path for folder in folders if (path := folder / self.name(device)).exists()), None)

    def save(self, path: Path, device: str, versions: Mapping[str, str], entries: Iterable[Any]) -> None:
        """Write `path`, which is replaced as a whole; an entry, of plain values, a line."""
        rows = ",\n".join(json.dumps(entry) for entry in entries)
        head = json.dumps({"schema": self.schema, "device": device, "versions": dict(versions)})[:-1]
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text(f'{head}, "entries": [\n{rows}\n]}}\n', encoding="utf-8")
        os.replace(temporary, path)

    def load(self, path: Path, device: str) -> list[Any]:
        """The entries of `path`.

        Raises: `error`: it is unreadable, not JSON, of another schema or device, or has no entries.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise self.error(f"{path}: damaged file of {self.what} ({error})") from error
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != self.schema:
            raise self.error(f"{path}: schema is {schema!r}, expected {self.schema!r}")
        if document.get("device") != device:
            raise self.error(f"{path}: measured on {document.get('device')!r}, this is {device!r}")
        entries = document.get("entries")
        if not isinstance(entries, list):
            raise self.error(f"{path}: damaged file of {self.what} (it has no entries)")
        return entries
