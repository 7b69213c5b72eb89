"""The contest of two revisions: both engines checked, then timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.cases import Case
from benchmarks.process import PeerError
from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.revisions import RevisionProcess
from benchmarks.rows import ERROR, FAIL, OK, time_columns, verdict_columns
from benchmarks.rows import new_row as engine_row
from benchmarks.runner import Settings, run_jobs
from benchmarks.subject import Subject
from effnet_fast.measure import alternate, judge_logits

SIDES = ("A", "B")


@dataclass(frozen=True)
class Job:
    """One case and the two sides that run it."""

    case: Case
    peers: tuple[str, ...] = SIDES


class RevisionContest:
    """Both revisions' processes, started when they are first needed, and the gate before them."""

    def __init__(
        self, trees: Mapping[str, Path], settings: Settings, device: str, folder: Path, reporter: Reporter
    ) -> None:
        self._trees, self._settings, self._device = trees, settings, device
        self._folder, self._reporter = folder, reporter
        self._running: dict[str, RevisionProcess] = {}

    def __enter__(self) -> RevisionContest:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._running.values():
            process.close()

    def run(self, jobs: Sequence[Job], results: Results, save: Callable[[], None]) -> int:
        subject = Subject(self._folder, self._settings.seed)

        def measure(job: Job) -> list[dict[str, object]]:
            self._reporter.step("weights and float64 logits")
            dtypes = {other.case.dtype for other in jobs if other.case.model == job.case.model}
            subject.load(job.case, sorted(dtypes), ["float"])
            rows = {side: new_row(job.case, side, results.settings[side]) for side in SIDES}
            for side, row in rows.items():
                self._judge(job.case, side, subject, row)
            self._time(rows)
            return list(rows.values())

        return run_jobs(jobs, measure, results, save, self._reporter)

    def _judge(self, case: Case, side: str, subject: Subject, row: dict[str, object]) -> None:
        """Run the case once, and hold its logits to the error budget; the time of this is dropped."""
        self._reporter.step(f"{side}: checking")
        try:
            if side not in self._running:
                self._running[side] = RevisionProcess(
                    self._trees[side],
                    threads=self._settings.threads,
                    device=self._device,
                    folder=self._folder,
                    name=side,
                )
            process = self._running[side]
            process.request = {
                "model": case.model, "batch": case.batch, "image_size": case.image_size, "dtype": case.dtype,
                "weights": str(subject.weights), "images": str(subject.images["float"]),
            }  # fmt: skip
            process.sample(0.0)
            logits = torch.load(process.logits, weights_only=True)
            oracle = subject.oracles["float"]
            exact, stock = oracle.rows(case)
            verdict = judge_logits(
                logits, oracle=exact, stock=stock, dtype=case.torch_dtype, terms=oracle.terms
            )
        except (PeerError, ValueError) as error:
            self._drop(side, row, error)
            return
        row.update(verdict_columns(verdict))
        row.update(status=OK if verdict.passed else FAIL, reason=verdict.reason)

    def _time(self, rows: Mapping[str, dict[str, object]]) -> None:
        """Time the sides of `rows` that passed, in turn; one that dies on the way has no time."""
        passed = [side for side, row in rows.items() if row["status"] == OK]
        sides = {side: _Named(self._running[side], side) for side in passed}
        try:
            summaries = alternate(
                sides,
                rounds=self._settings.rounds,
                min_seconds=self._settings.min_seconds,
                budget_seconds=self._settings.budget_seconds,
                on_sample=lambda index, side: self._reporter.step(
                    f"{side}: round {index + 1} of {self._settings.rounds}"
                ),
            )
        except _SideError as error:
            self._drop(error.side, rows[error.side], error)
            self._time({side: row for side, row in rows.items() if side != error.side})
            return
        for side, summary_ in summaries.items():
            rows[side].update(time_columns(summary_, rows[side]["batch"]))

    def _drop(self, side: str, row: dict[str, object], error: Exception) -> None:
        row.update(status=ERROR, reason=str(error))
        if side in self._running:
            self._running.pop(side).close()


class _SideError(PeerError):
    def __init__(self, side: str, error: PeerError) -> None:
        super().__init__(str(error))
        self.side = side


class _Named:
    """A side whose failure says which one it is."""

    def __init__(self, process: RevisionProcess, side: str) -> None:
        self._process, self._side = process, side

    def sample(self, min_seconds: float) -> list[float]:
        try:
            return self._process.sample(min_seconds)
        except PeerError as error:
            raise _SideError(self._side, error) from error


def new_row(case: Case, side: str, label: object) -> dict[str, object]:
    """A row without result."""
    return {**engine_row(case, "engine"), "peer": side, "label": label}


def rows_text(rows: Sequence[Mapping[str, object]]) -> str:
    found = (f"{row['median_ms']:.3f}" if row["status"] == OK else row["status"] for row in rows)
    return "ms: " + ", ".join(f"{row['peer']} {text}" for row, text in zip(rows, found, strict=True))
