"""The sweep: for each case, every peer is prepared, judged, and timed against the others."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.process import PeerError, PeerProcess, RunningPeer
from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.rows import (
    ERROR,
    FAIL,
    MEMORY,
    OK,
    UNAVAILABLE,
    latency_columns,
    new_row,
    time_columns,
    verdict_columns,
)
from benchmarks.subject import Subject
from effnet_fast.measure import alternate, judge_logits


@dataclass(frozen=True)
class Settings:
    """How every case is measured; stored in the result file."""

    rounds: int = 7
    min_seconds: float = 0.25
    budget_seconds: float = 40.0
    threads: int = 0
    seed: int = 0

    def record(self) -> dict[str, object]:
        return asdict(self)


#: For a look, within minutes; and for figures to be quoted.
QUICK = Settings(rounds=5, min_seconds=0.2, budget_seconds=12.0)
THOROUGH = Settings()


@dataclass(frozen=True)
class Job:
    """One case and the peers that run it."""

    case: Case
    peers: tuple[str, ...]


def run_jobs(
    jobs: Sequence,
    measure: Callable[..., list[dict[str, object]]],
    results: Results,
    save: Callable[[], None],
    reporter: Reporter,
    *,
    deadline_seconds: float | None = None,
) -> int:
    """Add the rows of `measure(job)` to `results` and `save` after each job: an interrupt keeps those done.

    No job is begun later than `deadline_seconds` after the start; returns how many were left out.
    """
    start = time.monotonic()
    reporter.start([job.case for job in jobs])
    try:
        for done, job in enumerate(jobs):
            if deadline_seconds is not None and time.monotonic() - start > deadline_seconds:
                return len(jobs) - done
            reporter.begin_case(job.case)
            rows = measure(job)
            results.put(rows)
            save()
            reporter.end_case(job.case, rows)
    finally:
        reporter.stop()
    return 0


class Runner:
    """Runs jobs and keeps the peers' processes between them.

    Args:
        settings: how to measure.
        reporter: told of every step.
        device: that is measured.
        each_call: rows have the distribution of single calls' latencies instead of medians of rounds.
        start_peer: name of a peer -> `RunningPeer`. None starts worker processes; tests give fakes.
    """

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        *,
        device: str = "cpu",
        each_call: bool = False,
        start_peer: Callable[[str], RunningPeer] | None = None,
    ):
        self.settings = settings
        self.reporter = reporter
        self.device = device
        self.each_call = each_call
        self._temporary = tempfile.TemporaryDirectory(prefix="effnet-fast-benchmarks-")
        self._folder = Path(self._temporary.name)
        self._start_peer = start_peer or (
            lambda name: PeerProcess(name, threads=settings.threads, folder=self._folder, device=device)
        )
        self._running: dict[str, RunningPeer] = {}

    def close(self) -> None:
        """End every process and remove the temporary files."""
        for peer in self._running.values():
            peer.close()
        self._running.clear()
        self._temporary.cleanup()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(
        self,
        jobs: Sequence[Job],
        results: Results,
        save: Callable[[], None],
        *,
        deadline_seconds: float | None = None,
    ) -> int:
        """See `run_jobs`."""
        subject = Subject(self._folder, self.settings.seed)

        def measure(job: Job) -> list[dict[str, object]]:
            self.reporter.step("weights and float64 logits")
            dtypes = {other.case.dtype for other in jobs if other.case.model == job.case.model}
            subject.load(job.case, sorted(dtypes), dict.fromkeys(PEERS[name].images for name in job.peers))
            return self._run_job(job, subject)

        return run_jobs(jobs, measure, results, save, self.reporter, deadline_seconds=deadline_seconds)

    def _run_job(self, job: Job, subject: Subject) -> list[dict[str, object]]:
        rows = {name: new_row(job.case, name) for name in job.peers}
        self._contest(job.case, rows, subject)
        # All peers of a case stand ready at once, so what one could not have another may be holding.
        for name, row in rows.items():
            if row["status"] == MEMORY and len(rows) > 1:
                alone = {**new_row(job.case, name), "alone": True}
                self._contest(job.case, {name: alone}, subject)
                rows[name] = alone
        return list(rows.values())

    def _contest(self, case: Case, rows: dict[str, dict[str, object]], subject: Subject) -> None:
        """Prepare, judge and time the peers of `rows` against each other."""
        try:
            for name, row in rows.items():
                self._prepare(case, name, subject, row)
            self._time({name: row for name, row in rows.items() if row["status"] == OK})
        finally:
            for name in rows:
                self._release(name)

    def _prepare(self, case: Case, name: str, subject: Subject, row: dict[str, object]) -> None:
        peer = PEERS[name]
        reason = peer.unavailable(self.device, case.model)
        if reason:
            row.update(status=UNAVAILABLE, reason=reason)
            return
        self.reporter.step(f"{peer.label}: {'compiling' if peer.slow_start else 'preparing'}")
        try:
            if name not in self._running:
                self._running[name] = self._start_peer(name)
            logits, details = self._running[name].prepare(
                case,
                subject.weights,
                subject.images[peer.images],
                memory=True,
                each_call=self.each_call,
            )
        except PeerError as error:
            self._drop(name, row, error)
            return
        oracle = subject.oracles[peer.images]
        exact, stock = oracle.rows(case)
        try:
            verdict = judge_logits(
                logits, oracle=exact, stock=stock, dtype=case.torch_dtype, terms=oracle.terms
            )
        except ValueError as error:  # stock PyTorch itself overflows in this dtype: nothing can be judged
            row.update(status=ERROR, reason=str(error))
            return
        row.update(verdict_columns(verdict))
        row["prepare_seconds"] = round(details["prepare_seconds"], 3)
        if details.get("details"):
            row["details"] = json.dumps(details["details"])
        if details.get("activation_bytes") is not None:
            row["activation_mib"] = round(details["activation_bytes"] / 2**20, 2)
        row.update(status=OK if verdict.passed else FAIL, reason=verdict.reason)

    def _time(self, rows: Mapping[str, dict[str, object]]) -> None:
        """Time the peers of `rows`; one that dies on the way is dropped and the others are timed afresh."""
        pending = dict(rows)
        while pending:
            failed: dict[str, PeerError] = {}
            guarded = {name: _Guarded(self._running[name], name, failed) for name in pending}
            try:
                summaries = alternate(
                    guarded,
                    rounds=self.settings.rounds,
                    min_seconds=self.settings.min_seconds,
                    budget_seconds=self.settings.budget_seconds,
                    on_sample=lambda index, name: self.reporter.step(
                        f"{PEERS[name].label}: round {index + 1} of {self.settings.rounds}"
                    ),
                )
            except PeerError:
                for name, error in failed.items():
                    self._drop(name, pending.pop(name), error)
                continue
            for name, row in pending.items():
                row.update(time_columns(summaries[name], row["batch"]))
                if self.each_call:
                    row.update(latency_columns(guarded[name].seconds))
            return

    def _release(self, name: str) -> None:
        if name in self._running:
            try:
                self._running[name].release()
            except PeerError:
                self._running.pop(name).close()

    def _drop(self, name: str, row: dict[str, object], error: PeerError) -> None:
        """Record `error` and end the peer's process; the next case gets a fresh one."""
        failed = MEMORY if error.out_of_memory else ERROR
        row.update(status=UNAVAILABLE if error.unavailable else failed, reason=str(error))
        peer = self._running.pop(name, None)
        if peer is not None:
            peer.close()


class _Guarded:
    """A candidate that notes what `alternate` does not tell: who failed, and the seconds of every call."""

    def __init__(self, peer: RunningPeer, name: str, failed: dict[str, PeerError]):
        self._peer, self._name, self._failed = peer, name, failed
        self.seconds: list[float] = []

    def sample(self, min_seconds: float) -> list[float]:
        try:
            seconds = self._peer.sample(min_seconds)
            self.seconds += seconds
            return seconds
        except PeerError as error:
            self._failed[self._name] = error
            raise
