"""The result files of a page: found, read and checked before anything is drawn or written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.console import shown_path
from benchmarks.results import ResultError, Results, load

#: What every record of an environment has; a page without them could not say what its figures are worth.
ENVIRONMENT = ("cpu", "date", "isa", "libraries", "threads")


@dataclass(frozen=True)
class Source:
    """A result file and what it holds. `name` is the path as it is shown."""

    path: Path
    results: Results

    @property
    def name(self) -> str:
        return shown_path(self.path)

    @property
    def stem(self) -> str:
        """For names of plots and links: the folder, which names the device, and the file."""
        return f"{self.path.resolve().parent.name}-{self.path.stem}"


def committed_files(folder: Path) -> list[Path]:
    """The result files of all devices under `folder`; those of `local` are nobody else's."""
    return [path for path in sorted(folder.glob("*/*.json")) if path.parent.name != "local"]


def result_files(paths: Iterable[Path]) -> list[Path]:
    """`paths`, each folder replaced by every *.json below it, each file once.

    Raises: ResultError for a path that is not there and for a folder without a *.json.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not below:
            raise ResultError(f"{path}: there is no result file (*.json) in this folder or below it")
        found += below
    return list({path.resolve(): path for path in found}.values())


def read(paths: Iterable[Path]) -> list[Source]:
    """The results of `paths`.

    Raises: ResultError for the first one that is missing, damaged, edited or of another schema, or whose
        environment does not say what it was measured on.
    """
    sources = [Source(path, load(path)) for path in paths]
    for source in sources:
        environment = source.results.environment
        missing = [name for name in ENVIRONMENT if name not in environment]
        if missing or "torch" not in environment["libraries"]:
            lacks = ", ".join(missing) or "the version of torch"
            raise ResultError(f"{source.path}: damaged result file (its environment lacks {lacks})")
    return sources
