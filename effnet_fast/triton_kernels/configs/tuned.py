"""Configurations that ``effnet-fast tune`` measured, by device.

One JSON file a device, in the package or in the folder that ``EFFNET_FAST_TUNED_DIR`` names, whose file wins.
A file that cannot be trusted is an error that names it: an ignored one would look like a slow GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet_fast.triton_kernels.device import Device
from effnet_fast.tuned_files import DIRECTORY_VARIABLE, TunedFiles

__all__ = [
    "DIRECTORY_VARIABLE",
    "Entry",
    "TunedError",
    "file_name",
    "load",
    "lookup",
    "parse",
    "record",
    "save",
    "trial",
]

PACKAGED = Path(__file__).parents[1] / "tuned"

#: How far a measured problem may be from the one at hand: the sum of |log2| of the ratios of their sizes.
#: 2 is a factor of four in all; blocks that were best for a quarter of the work say little about the whole.
FARTHEST = 2.0


class TunedError(ValueError):
    """A file of tuned configurations that cannot be used; the message names the file and the reason."""


FILES = TunedFiles("effnet_fast.tuned/1", "tuned configurations", ".json", TunedError)


@dataclass(frozen=True)
class Entry:
    """One measured problem: its best configuration, and what a call took with it."""

    problem: Any
    config: Any
    microseconds: float


def lookup(problem: Any, device: Device) -> Any | None:
    """The measured configuration of the nearest problem of the same kind, or None."""
    if _trials:
        return _trials[-1].ask(problem)
    return _nearest(problem, device)


@functools.cache
def _nearest(problem: Any, device: Device) -> Any | None:
    entries = [
        entry
        for entry in _entries(device)
        if type(entry.problem) is type(problem) and entry.problem.kind == problem.kind
    ]
    nearest = min(entries, key=lambda entry: distance(entry.problem, problem), default=None)
    if nearest is None or distance(nearest.problem, problem) > FARTHEST:
        return None
    return nearest.config


def distance(one: Any, other: Any) -> float:
    """Between two problems of a kind: see `FARTHEST`."""
    return sum(abs(math.log2(a / b)) for a, b in zip(one.size, other.size, strict=True))


@functools.cache
def _entries(device: Device) -> tuple[Entry, ...]:
    """What the file of `device` holds, read once; empty where there is none."""
    path = FILES.find(device.name, PACKAGED, os.environ.get(DIRECTORY_VARIABLE))
    return () if path is None else tuple(load(path, device))


def forget() -> None:
    """Read files anew at the next call."""
    _entries.cache_clear()
    _nearest.cache_clear()


def file_name(device: Device) -> str:
    """``NVIDIA H200`` gives ``nvidia-h200.json``."""
    return FILES.name(device.name)


def save(path: Path, device: Device, versions: Mapping[str, str], entries: Sequence[Entry]) -> None:
    """Write `path`; it is replaced as a whole."""
    rows = (record(entry.problem, entry.config, microseconds=entry.microseconds) for entry in entries)
    FILES.save(path, device.name, versions, rows)


def load(path: Path, device: Device) -> list[Entry]:
    """The entries of `path`.

    Raises:
        TunedError: it is unreadable, not JSON, of another schema or device, or has an entry that is no
            problem and configuration of this version.
    """
    return [
        Entry(*parse(row, path), _positive(row.get("microseconds"), path))
        for row in FILES.load(path, device.name)
    ]


def record(problem: Any, config: Any, **more: Any) -> dict[str, Any]:
    """`problem` and `config` as plain values; `parse` reads them."""
    fields = {"problem": dataclasses.asdict(problem), "config": dataclasses.asdict(config)}
    return {"operator": problem.operator, **fields, **more}


def parse(row: Any, path: Path) -> tuple[Any, Any]:
    """Problem and configuration of `row` of file `path`; TunedError where this version has no such fields."""
    from . import MODULES

    operator = row.get("operator") if isinstance(row, dict) else None
    if operator not in MODULES:
        raise TunedError(f"{path}: operator is {operator!r}, expected one of {', '.join(MODULES)}")
    module = MODULES[operator]
    return _built(module.Problem, row.get("problem"), path), _built(module.Config, row.get("config"), path)


def _built(kind: type, values: Any, path: Path) -> Any:
    wanted = {field.name: field.type for field in dataclasses.fields(kind)}
    what = f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
    if not isinstance(values, dict) or set(values) != set(wanted):
        found = sorted(values) if isinstance(values, dict) else values
        raise TunedError(f"{path}: {what} has {found}, this version expects {sorted(wanted)}: tune again")
    for name, value in values.items():
        # All fields are block sizes, counts, or flags; a kernel would take anything else without a word.
        if type(value).__name__ != wanted[name] or (isinstance(value, int) and value < 0):
            raise TunedError(f"{path}: {what} has {name} = {value!r}, expected {wanted[name]}")
    return kind(**values)


def _positive(value: Any, path: Path) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise TunedError(f"{path}: microseconds = {value!r}, expected a positive number")
    return float(value)


class Trial:
    """Configurations that decide for a while, and the problems that were asked about meanwhile."""

    def __init__(self, configs: Mapping[Any, Any]) -> None:
        self._configs = configs
        self.asked: list[Any] = []

    def ask(self, problem: Any) -> Any | None:
        self.asked.append(problem)
        return self._configs.get(problem)


_trials: list[Trial] = []


@contextlib.contextmanager
def trial(configs: Mapping[Any, Any]) -> Iterator[Trial]:
    """Within, `configs` decides about its problems, and the heuristic about all others: for tuning itself."""
    _trials.append(Trial(configs))
    try:
        yield _trials[-1]
    finally:
        _trials.pop()
