"""When two measured times differ, and when that is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SAME_RUN_FLOOR", "SEPARATE_RUNS_FLOOR", "Difference", "Times", "compare_times"]

#: A smaller difference is noise whatever the rounds say: they do not see what a process is dealt once, such
#: as the addresses of its buffers. 2 % where both were timed in turn, 5 % where each had a run of its own,
#: between which clocks and neighbours drift.
SAME_RUN_FLOOR = 0.02
SEPARATE_RUNS_FLOOR = 0.05


class Times(Protocol):
    """Seconds (or another unit) of a call, over rounds: a `Summary`, say."""

    @property
    def median(self) -> float: ...

    @property
    def p20(self) -> float: ...

    @property
    def p80(self) -> float: ...

    @property
    def rounds(self) -> int: ...


@dataclass(frozen=True)
class Difference:
    """How two times compare.

    Attributes:
        ratio: how many times as fast the second is: the first's median over the second's.
        spread: run-to-run spread of the ratio, as a share of it: half the distance from the 20th to the 80th
            percentile over the median, of both times, added.
        noise: whether the two are to be taken as equal.
    """

    ratio: float
    spread: float
    noise: bool


def compare_times(first: Times, second: Times, *, floor: float) -> Difference:
    """Hold `second` against `first`.

    They differ when two things hold: the intervals from the 20th to the 80th percentile of their rounds do
    not overlap, and the medians are further apart than `floor` and than the spread of the ratio, twice that
    spread where there are five rounds, which tell it badly. So the rule calls two runs of one program
    different in about one of 100 comparisons (simulated: normal rounds, 5, 7 or 9 of them; the intervals
    alone: one of 11 with 5), and with 9 rounds sees 10 % at a scatter of 3 % in 99 of 100.

    Args:
        first, second: in one unit, with ``0 < p20 <= median <= p80``.
        floor: as a share; `SAME_RUN_FLOOR` or `SEPARATE_RUNS_FLOOR`.

    Raises:
        ValueError: a time that is not positive, finite and in that order, or a negative `floor`.
    """
    for times in (first, second):
        if not (0 < times.p20 <= times.median <= times.p80 < math.inf):
            found = f"p20 {times.p20}, median {times.median}, p80 {times.p80}"
            raise ValueError(f"times must be positive and in order, got {found}")
    if not floor >= 0:
        raise ValueError(f"floor must be 0 or more, got {floor}")
    ratio = first.median / second.median
    spread = sum((times.p80 - times.p20) / (2 * times.median) for times in (first, second))
    margin = max(1.0, 2.0 - (min(first.rounds, second.rounds) - 5) / 4)
    overlap = first.p20 <= second.p80 and second.p20 <= first.p80
    # In logarithms, so that exchanging the two exchanges no more than the sign.
    apart = abs(math.log(ratio))
    return Difference(ratio, spread, overlap or apart <= max(margin * spread, math.log1p(floor)))
