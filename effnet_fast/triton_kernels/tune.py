"""The search behind ``effnet-fast tune``: every candidate of every problem, checked, then timed in rounds.

A candidate's figure is the median of rounds in which all candidates of the problem take turns, for clocks and
temperatures drift within seconds. Each figure is written to a log at once, so that an interrupted search goes
on where it ended. How a time is taken is the caller's: the search itself needs no GPU, and is tested without.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import TritonError

from .configs import MODULES, tuned
from .device import Device
from .launch import Launch

__all__ = ["Call", "Log", "Observer", "Task", "best", "search", "tasks_of"]

SCHEMA = "effnet_fast.tuning/1"

#: Times that a candidate is measured, in turns with the others.
ROUNDS = 3

#: A candidate replaces the heuristic's choice where it is faster by more than repeated measurements differ.
MARGIN = 0.02

#: What two orders of summation may differ by: one rounding of the result's type up or down, and some of the
#: float32 accumulator.
RESULT_ROUNDINGS, SUM_ROUNDINGS = 2, 64

Measure = Callable[[Sequence[Launch]], float]


class Call(Protocol):
    """One call of an operator in meta tensors; see `effnet_fast.inference.kernel_calls`."""

    operator: str
    outputs: Sequence[Tensor]
    arguments: Sequence[Any]


@dataclass(frozen=True, eq=False)
class Task:
    """One problem, and a call that poses it."""

    problem: Any
    call: Call
    candidates: Sequence[Any]


class Observer(Protocol):
    """Told what happens."""

    def begin(self, task: Task, done: int, total: int) -> None: ...

    def dropped(self, task: Task, config: Any, reason: str) -> None: ...


def tasks_of(calls: Iterable[Call], device: Device) -> list[Task]:
    """The distinct problems of `calls`, in their order."""
    found: dict[Any, Task] = {}
    for call in calls:
        with tuned.trial({}) as asked:
            _module(call).launches(device, call.outputs, *call.arguments)
        for problem in asked.asked:
            if problem not in found:
                found[problem] = Task(problem, call, _candidates(problem, device))
    return list(found.values())


def _candidates(problem: Any, device: Device) -> list[Any]:
    """The heuristic's choice first, without which the others have nothing to be compared with."""
    module = MODULES[problem.operator]
    return list(dict.fromkeys([module.heuristic(problem, device), *module.candidates(problem, device)]))


def _module(call: Call) -> Any:
    return importlib.import_module(f"{__package__}.{call.operator}")


@dataclass
class Log:
    """Everything measured on one device so far: a file of JSON lines, appended to and never rewritten.

    Attributes:
        path: of the file; begun when the first line is written.
        times: (problem, config) -> microseconds of each round.
        dropped: (problem, config) -> why it is out.
    """

    path: Path
    device: Device
    versions: Mapping[str, str]
    times: dict[tuple[Any, Any], list[float]] = field(default_factory=dict)
    dropped: dict[tuple[Any, Any], str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, device: Device, versions: Mapping[str, str], *, resume: bool) -> Log:
        """The log at `path`, or an empty one; TunedError when it cannot be gone on with."""
        log = cls(path, device, dict(versions))
        if not resume:
            path.unlink(missing_ok=True)
        elif path.exists():
            log._read()
        return log

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        # An interruption within a line leaves it without its end, and loses no more than that.
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        if not whole:
            return
        try:
            head, *rows = map(json.loads, whole.splitlines())
        except json.JSONDecodeError as error:
            raise tuned.TunedError(
                f"{self.path}: damaged log ({error}); begin anew with --no-resume"
            ) from error
        if head != self._head():
            raise tuned.TunedError(
                f"{self.path}: was begun with {head}, this is {self._head()}; begin anew with --no-resume"
            )
        for row in rows:
            key = tuned.parse(row, self.path)
            if "dropped" in row:
                self.dropped[key] = row["dropped"]
            else:
                self.times.setdefault(key, []).append(float(row["microseconds"]))

    def _head(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "device": self.device.name, "versions": self.versions}

    def measured(self, problem: Any, config: Any, microseconds: float) -> None:
        self.times.setdefault((problem, config), []).append(microseconds)
        self._append(tuned.record(problem, config, microseconds=microseconds))

    def drop(self, problem: Any, config: Any, reason: str) -> None:
        self.dropped[problem, config] = reason
        self._append(tuned.record(problem, config, dropped=reason))

    def _append(self, row: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [] if self.path.exists() and self.path.stat().st_size else [self._head()]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in (*lines, row))
            file.flush()
            os.fsync(file.fileno())

    def remaining(self, task: Task) -> list[Any]:
        """Candidates of `task` that lack a round."""
        return [
            config
            for config in task.candidates
            if (task.problem, config) not in self.dropped
            and len(self.times.get((task.problem, config), ())) < ROUNDS
        ]


def search(
    tasks: Sequence[Task],
    device: Device,
    place: torch.device,
    measure: Measure,
    log: Log,
    observer: Observer,
    *,
    deadline: float | None = None,
) -> bool:
    """Measure what `log` lacks of `tasks`; False when the `deadline` (of time.monotonic) came first.

    Args:
        tasks: see `tasks_of`.
        device: facts of `place`.
        place: where the tensors are made.
        measure: microseconds that the launches take, one after the other.
        log: what is known, and where every figure goes.
        observer: told of problems begun and candidates dropped.
        deadline: no problem is begun after it.
    """
    for done, task in enumerate(tasks):
        if not log.remaining(task):
            continue
        if deadline is not None and time.monotonic() >= deadline:
            return False
        observer.begin(task, done, len(tasks))
        try:
            _measure_task(task, device, place, measure, log, observer)
        except torch.OutOfMemoryError as error:
            for config in log.remaining(task):
                log.drop(task.problem, config, f"out of memory: {str(error).splitlines()[0]}")
                observer.dropped(task, config, "out of memory")
    return True


def _measure_task(
    task: Task, device: Device, place: torch.device, measure: Measure, log: Log, observer: Observer
) -> None:
    problem, call = task.problem, task.call
    generator = torch.Generator(place).manual_seed(0)
    outputs = [torch.empty_like(y, device=place) for y in call.outputs]
    arguments = [_filled(value, place, generator) for value in call.arguments]
    truth: list[Tensor] | None = None
    ready: dict[Any, list[Launch]] = {}
    for config in [task.candidates[0], *log.remaining(task)]:
        if config in ready:
            continue
        with tuned.trial({problem: config}):
            launches = _module(call).launches(device, outputs, *arguments)
        try:
            results = _results(launches, outputs)
        except (TritonError, CompilationError) as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        else:
            truth = results if truth is None else truth
            reason = _difference(results, truth)
        if not reason:
            ready[config] = launches
        elif (problem, config) not in log.dropped:
            log.drop(problem, config, reason)
            observer.dropped(task, config, reason)
        if truth is None:
            return  # the heuristic's choice does not run: there is nothing to compare the others with
    for turn in range(ROUNDS):
        for config in log.remaining(task):
            if len(log.times.get((problem, config), ())) <= turn:
                log.measured(problem, config, measure(ready[config]))


def _filled(value: Any, place: torch.device, generator: torch.Generator) -> Any:
    """`value` with memory and random contents for its meta tensors; lists are weights.

    Vectors and matrices that are no weights are gates and normalisation, which are positive.
    """
    if isinstance(value, list):
        return [_random(tensor, place, generator, -1.0, 1.0) for tensor in value]
    if isinstance(value, Tensor):
        return _random(value, place, generator, *((0.25, 1.0) if value.dim() <= 2 else (-1.0, 1.0)))
    return value


def _random(
    like: Tensor, place: torch.device, generator: torch.Generator, least: float, most: float
) -> Tensor:
    tensor = torch.empty_like(like, device=place)
    if tensor.is_floating_point():
        return tensor.uniform_(least, most, generator=generator)
    return tensor.random_(0, 256, generator=generator)


def _results(launches: Sequence[Launch], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Copies of what `launches` write to `outputs`."""
    for y in outputs:
        y.fill_(float("nan"))
    for launch in launches:
        launch.run()
    return [y.clone() for y in outputs]


def _difference(results: Sequence[Tensor], truth: Sequence[Tensor]) -> str:
    """How `results` differ from `truth` by more than roundings; empty where they do not."""
    for y, expected in zip(results, truth, strict=True):
        roundings = (
            RESULT_ROUNDINGS * torch.finfo(y.dtype).eps + SUM_ROUNDINGS * torch.finfo(torch.float32).eps
        )
        allowed = roundings * expected.abs().max().item()
        error = (y.float() - expected.float()).abs().max().item()
        if not error <= allowed:
            return f"wrong: differs from the heuristic's by {error:.3g}, allowed: {allowed:.3g}"
    return ""


def best(log: Log) -> list[tuned.Entry]:
    """The fastest configuration of every problem whose heuristic's choice has a time."""
    problems = dict.fromkeys(problem for problem, _ in log.times)
    found = []
    for problem in problems:
        medians = {
            config: statistics.median(times)
            for (asked, config), times in log.times.items()
            if asked == problem
        }
        first = MODULES[problem.operator].heuristic(problem, log.device)
        if first not in medians:
            continue
        fastest = min(medians, key=medians.__getitem__)
        config = fastest if medians[fastest] < (1 - MARGIN) * medians[first] else first
        found.append(tuned.Entry(problem, config, medians[config]))
    return found
