"""Contests inside one process: a kernel or a few, checked, then timed against stock PyTorch in rounds."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.rows import ERROR, FAIL, OK, time_columns
from benchmarks.runner import Settings, run_jobs
from effnet_fast.measure import Candidate, LocalCandidate, Summary, alternate
from effnet_fast.measure.device_timing import DeviceTimer
from effnet_fast.testing import Budget, Comparison, Expectation

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


def in_storage(expectation: Expectation) -> Expectation:
    """What `expectation` is of a form that stores every output in the storage dtype, as stock PyTorch does.

    The contract has gates and the head's means in float32. Rounded to 16 bits they are 200 to 5000 times as
    wrong as it allows, which is no fault, so their budget is made of 16 bits, as that of logits is
    (`judge_logits`): twice the error of the reference rounded once, and one rounding more. Outputs that have
    the storage dtype in the contract keep its budget. Over all layers of B0, B4, Lite0 and V2-B0 in three
    dtypes right forms use up to 0.42 of what is allowed; one without a bias, or with another activation or
    sigmoid where that changes a value, 2.4 times it and more.
    """
    storage = expectation.storage
    return replace(
        expectation,
        budgets=tuple(
            budget
            if budget.dtype == storage
            else Budget(budget.r64, budget.rlow.to(storage), terms=1, dtype=storage)
            for budget in expectation.budgets
        ),
    )


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
        self._interrupted = False

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
        """See `benchmarks.runner.run_jobs`. Ctrl-C while a case is timed keeps it, too, with the rounds that
        are complete, if those are enough for a median.
        """

        def save_then_stop() -> None:
            save()
            if self._interrupted:
                raise KeyboardInterrupt

        return run_jobs(
            jobs, self._run_job, results, save_then_stop, self.reporter, deadline_seconds=deadline_seconds
        )

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
            if self._interrupted:
                row["interrupted"] = True
        return list(rows.values())

    def time(self, calls: Mapping[str, Callable[[], object]], rows: Mapping[str, Row]) -> None:
        """Time `calls` against each other in rounds, and write what they took into their rows."""
        summaries = alternate(
            {peer: candidate(call, self.device) for peer, call in calls.items()},
            rounds=self.settings.rounds,
            min_seconds=self.settings.min_seconds,
            budget_seconds=self.settings.budget_seconds,
            on_sample=lambda index, peer: self.reporter.step(
                f"{rows[peer]['label']}: round {index + 1} of {self.settings.rounds}"
            ),
            on_interrupt=self._interrupt,
        )
        put_times(summaries, rows)

    def _interrupt(self) -> None:
        self._interrupted = True


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
