"""Timing of interchangeable candidates: alternating rounds, medians, percentiles.

Two candidates timed one after the other are compared under two different machines: clocks, neighbours and
page caches drift within seconds. So every comparison here goes in rounds. In each round every candidate is
sampled once, the order rotates from round to round, and a candidate's figure is the median over rounds of its
median within a round.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

#: A call shorter than this is run once untimed at the start of every sample, so that a candidate that comes
#: after another one finds its own code, weights and threads awake. A longer call wakes itself within its
#: first per cent.
REWARM_BELOW_SECONDS = 0.25

#: Rounds below which a median says nothing.
MIN_ROUNDS = 3

#: Calls between two synchronisations on a GPU take about this long, and there are at most so many: a
#: throughput is that of a queue which is never empty, and a launch is fast where the one before hides it.
BATCH_SECONDS = 0.02
MOST_CALLS = 1000


class Candidate(Protocol):
    """Something that can be timed: a local callable (`LocalCandidate`) or a process on the other end of a
    pipe.
    """

    def sample(self, min_seconds: float) -> Sequence[float]:
        """Run for at least `min_seconds` and at least once; return the seconds of each call."""
        ...


@dataclass(frozen=True)
class Summary:
    """What `alternate` found for one candidate; seconds per call."""

    median: float
    p20: float
    p80: float
    best: float
    rounds: int
    calls: int

    @property
    def spread(self) -> float:
        """Distance between the 20th and the 80th percentile of the rounds, as a share of the median."""
        return (self.p80 - self.p20) / self.median if self.median > 0 else math.nan


class LocalCandidate:
    """A callable of no arguments, timed in this process.

    Args:
        call: the work. Its result is dropped.
        synchronize: called before each clock reading, for a device that works behind the caller's back
            (`torch.cuda.synchronize`); None for a CPU.
        clock: seconds, monotonic. Tests pass their own.
    """

    def __init__(
        self,
        call: Callable[[], object],
        *,
        synchronize: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._call = call
        self._synchronize = synchronize or (lambda: None)
        self._clock = clock
        self._last_seconds = 0.0

    def _timed_call(self) -> float:
        self._synchronize()
        start = self._clock()
        self._call()
        self._synchronize()
        return self._clock() - start

    def sample(self, min_seconds: float) -> list[float]:
        if self._last_seconds < REWARM_BELOW_SECONDS:
            self._last_seconds = self._timed_call()
        seconds: list[float] = []
        total = 0.0
        while not seconds or total < min_seconds:
            seconds.append(self._timed_call())
            total += seconds[-1]
        self._last_seconds = seconds[-1]
        return seconds


class CallBatches:
    """A candidate whose calls are timed in batches of `BATCH_SECONDS`, synchronised before and after each.

    Args:
        call: the work.
        synchronize: waits for the device.
        options: of `LocalCandidate`.
    """

    def __init__(
        self, call: Callable[[], object], *, synchronize: Callable[[], None], **options: object
    ) -> None:
        self._call = call
        self._calls = 0
        self._batch = LocalCandidate(self._run, synchronize=synchronize, **options)

    def _run(self) -> None:
        for _ in range(self._calls):
            self._call()

    def sample(self, min_seconds: float) -> list[float]:
        """Seconds of each call: the mean of its batch."""
        if not self._calls:
            self._calls = 1
            (seconds,) = self._batch.sample(0.0)
            self._calls = min(MOST_CALLS, max(1, math.ceil(BATCH_SECONDS / max(seconds, 1e-9))))
        batches = self._batch.sample(min_seconds)
        return [seconds / self._calls for seconds in batches for _ in range(self._calls)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of `values` lies, linear between neighbours. `values` must not be
    empty.
    """
    if not values:
        raise ValueError("percentile: values is empty; at least one value is needed")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"percentile: share is {share}; allowed: 0 to 1")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summarize(rounds: Sequence[Sequence[float]]) -> Summary:
    """Reduce the seconds of each call in each round to a `Summary`; rounds and their contents must not be
    empty.
    """
    if not rounds or not all(rounds):
        raise ValueError("summarize: every round must hold at least one call, and there must be one round")
    medians = [statistics.median(seconds) for seconds in rounds]
    return Summary(
        median=statistics.median(medians),
        p20=percentile(medians, 0.2),
        p80=percentile(medians, 0.8),
        best=min(min(seconds) for seconds in rounds),
        rounds=len(rounds),
        calls=sum(len(seconds) for seconds in rounds),
    )


def alternate(
    candidates: Mapping[str, Candidate],
    *,
    rounds: int = 7,
    min_seconds: float = 0.25,
    budget_seconds: float | None = None,
    on_sample: Callable[[int, str], None] | None = None,
    on_interrupt: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Summary]:
    """Time `candidates` against each other in rounds and return a `Summary` for each.

    Args:
        candidates: name -> candidate; all of them must be warm (compiled, first call made).
        rounds: how often every candidate is sampled, at least `MIN_ROUNDS`.
        min_seconds: how long one sample lasts at least; a single call that lasts longer is a sample by
            itself.
        budget_seconds: stop after the round in which this much time has passed, but not before `MIN_ROUNDS`.
        on_sample: called with (round, name) before each sample, to show progress.
        on_interrupt: called on Ctrl-C where `MIN_ROUNDS` are complete, whose summaries are then returned.
        clock: seconds, monotonic.

    Raises:
        ValueError: fewer than `MIN_ROUNDS` rounds, or a negative `min_seconds`. KeyboardInterrupt: Ctrl-C
        without `on_interrupt`, or before `MIN_ROUNDS` are complete.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"alternate: rounds is {rounds}; allowed: {MIN_ROUNDS} or more")
    if min_seconds < 0:
        raise ValueError(f"alternate: min_seconds is {min_seconds}; allowed: 0 or more")
    names = list(candidates)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    start = clock()
    try:
        for round_index in range(rounds if names else 0):
            if budget_seconds is not None and round_index >= MIN_ROUNDS and clock() - start > budget_seconds:
                break
            turn = round_index % len(names)
            for name in names[turn:] + names[:turn]:
                if on_sample is not None:
                    on_sample(round_index, name)
                seconds[name].append(list(candidates[name].sample(min_seconds)))
    except KeyboardInterrupt:
        if on_interrupt is None or min(map(len, seconds.values())) < MIN_ROUNDS:
            raise
        on_interrupt()
    complete = min(map(len, seconds.values()), default=0)
    return {name: summarize(seconds[name][:complete]) for name in names}
