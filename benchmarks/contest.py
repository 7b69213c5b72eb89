"""Contests inside one process: a kernel or a few, checked, then timed against stock PyTorch in rounds."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.rows import ERROR, FAIL, OK, time_columns
from benchmarks.runner import Settings, run_jobs
from effnet_fast.measure import Candidate, LocalCandidate, Summary, alternate
from effnet_fast.measure.device_timing import DeviceTimer
from effnet_fast.testing import Comparison

Row = dict[str, object]


@dataclass(frozen=True)
class Job:
    """One case and the names of those who compute it."""

    case: Any
    peers: tuple[str, ...]


class Contest(Protocol):
    """One case with everybody who computes it made ready, one after the other."""

    def prepare(self, peer: str, row: Row) -> Callable[[], object]:
        """What `peer` runs, called once; `row` gets its verdict."""
        ...


def candidate(call: Callable[[], object], device: str) -> Candidate:
    """`call` as `alternate` times it: by the device's own clock where it has one."""
    return LocalCandidate(call) if device == "cpu" else _OnDevice(call)


@functools.cache
def _timer() -> DeviceTimer:
    return DeviceTimer()


class _OnDevice:
    """A candidate that the GPU's events time; how long a sample lasts is theirs to choose."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def sample(self, min_seconds: float) -> list[float]:
        return [_timer()(self._call) / 1e6]


def judge(found: Mapping[str, Comparison], row: Row) -> None:
    """Write into `row` whether every output kept the numerics contract."""
    used = max(comparison.used for comparison in found.values())
    passed = all(comparison.passed for comparison in found.values())
    row["status"] = OK if passed else FAIL
    row["error_usage"] = float(f"{used:.4g}") if used < float("inf") else None
    row["reason"] = "" if passed else f"error is {used:.3g} times what the contract allows"


class ContestRunner(ABC):
    """Runs jobs in this process, so that nothing but the kernels themselves is timed."""

    def __init__(self, settings: Settings, reporter: Reporter, device: str = "cpu") -> None:
        self.settings, self.reporter, self.device = settings, reporter, device

    @abstractmethod
    def open(self, case: Any) -> Contest:
        """The contest of `case`; may raise what only this case meets, memory above all."""

    @abstractmethod
    def new_row(self, case: Any, peer: str) -> Row:
        """A row without result."""

    @abstractmethod
    def complete(self, contest: Any, row: Row) -> None:
        """Add what follows from the work of the case and from the time in `row`, where there is one."""

    def run(
        self,
        jobs: Sequence[Job],
        results: Results,
        save: Callable[[], None],
        *,
        deadline_seconds: float | None = None,
    ) -> int:
        """See `benchmarks.runner.run_jobs`."""
        return run_jobs(jobs, self._run_job, results, save, self.reporter, deadline_seconds=deadline_seconds)

    def _run_job(self, job: Job) -> list[Row]:
        rows = {peer: self.new_row(job.case, peer) for peer in job.peers}
        calls: dict[str, Callable[[], object]] = {}
        try:
            contest = self.open(job.case)
        except Exception as error:  # memory is the usual reason, and the next case may have enough
            for row in rows.values():
                row.update(status=ERROR, reason=_sentence(error))
            return list(rows.values())
        for peer, row in rows.items():
            self.reporter.step(f"{row['label']}: preparing")
            try:
                calls[peer] = contest.prepare(peer, row)
            except Exception as error:  # whatever it raises is its result for this case
                row.update(status=ERROR, reason=_sentence(error))
        self.time({peer: call for peer, call in calls.items() if rows[peer]["status"] == OK}, rows)
        for row in rows.values():
            self.complete(contest, row)
        return list(rows.values())

    def candidate(self, peer: str, call: Callable[[], object]) -> Candidate:
        """`call` of `peer` as it is timed."""
        return candidate(call, self.device)

    def time(self, calls: Mapping[str, Callable[[], object]], rows: Mapping[str, Row]) -> None:
        """Time `calls` against each other in rounds, and write what they took into their rows."""
        summaries = alternate(
            {peer: self.candidate(peer, call) for peer, call in calls.items()},
            rounds=self.settings.rounds,
            min_seconds=self.settings.min_seconds,
            budget_seconds=self.settings.budget_seconds,
            on_sample=lambda index, peer: self.reporter.step(
                f"{rows[peer]['label']}: round {index + 1} of {self.settings.rounds}"
            ),
        )
        put_times(summaries, rows)


def put_times(summaries: Mapping[str, Summary], rows: Mapping[str, Row]) -> None:
    """Write the columns of the timing into the row of each peer."""
    for peer, summary in summaries.items():
        rows[peer].update(time_columns(summary, rows[peer]["batch"]))


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def rows_text(rows: Sequence[Mapping[str, object]]) -> str:
    """A case's result in a line."""
    parts = [
        f"{row['label']} {row['median_ms']:.4f}" if row["status"] == OK else f"{row['label']} {row['status']}"
        for row in rows
    ]
    return "ms: " + ", ".join(parts)
