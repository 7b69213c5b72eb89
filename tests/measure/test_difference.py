"""Which differences are noise: two runs of one program are equal, a slower one is found."""

from __future__ import annotations

import random

import pytest

from effnet_fast.measure import Summary, summarize
from effnet_fast.measure.difference import SAME_RUN_FLOOR, SEPARATE_RUNS_FLOOR, compare_times


def measured(source: random.Random, rounds: int, scatter: float, median: float = 10.0) -> Summary:
    return summarize([[median * (1 + source.gauss(0, scatter))] for _ in range(rounds)])


def share_of_differences(rounds: int, scatter: float, slower: float = 1.0, *, floor=SAME_RUN_FLOOR) -> float:
    source, trials = random.Random(7), 2000
    found = 0
    for _ in range(trials):
        one, other = measured(source, rounds, scatter), measured(source, rounds, scatter, 10.0 * slower)
        found += not compare_times(one, other, floor=floor).noise
    return found / trials


@pytest.mark.parametrize("rounds", [3, 5, 7, 9, 15])
@pytest.mark.parametrize("scatter", [0.003, 0.03, 0.1])
def test_two_runs_of_one_program_are_equal(rounds, scatter):
    # Three rounds say little; from five on it is one of 100, as the docstring has it, and the error of that.
    assert share_of_differences(rounds, scatter) <= (0.05 if rounds == 3 else 0.015)


@pytest.mark.parametrize(
    ("rounds", "scatter", "slower", "least"),
    [(9, 0.03, 1.1, 0.98), (9, 0.005, 1.03, 0.95), (5, 0.01, 1.1, 0.99), (5, 0.03, 1.3, 0.99)],
)
def test_a_slower_program_is_found(rounds, scatter, slower, least):
    assert share_of_differences(rounds, scatter, slower) >= least
    assert share_of_differences(rounds, scatter, 1 / slower) >= least


def test_below_the_floor_is_noise_however_steady():
    one, other = Summary(10.0, 10.0, 10.0, 10.0, 9, 9), Summary(10.3, 10.3, 10.3, 10.3, 9, 9)
    assert compare_times(one, other, floor=SEPARATE_RUNS_FLOOR).noise
    found = compare_times(one, other, floor=SAME_RUN_FLOOR)
    assert (found.noise, found.spread) == (False, 0.0)
    assert found.ratio == pytest.approx(1 / 1.03)  # the second is slower


def test_overlapping_intervals_are_noise_and_the_spread_is_that_of_both():
    one, other = Summary(10.0, 9.0, 11.0, 9.0, 9, 9), Summary(12.0, 10.9, 12.0, 10.0, 9, 9)
    found = compare_times(one, other, floor=0.0)
    assert found.noise
    assert found.spread == pytest.approx(0.1 + 1.1 / 24)
    # Just apart, and further than the spread: a difference. Exchanged it is the same one.
    apart = Summary(13.0, 11.1, 13.0, 11.0, 9, 9)
    assert not compare_times(one, apart, floor=0.0).noise
    assert not compare_times(apart, one, floor=0.0).noise


@pytest.mark.parametrize(
    "wrong",
    [(0.0, 0.0, 1.0), (2.0, 1.0, 1.5), (1.0, 1.5, 2.0), (float("nan"),) * 3, (1.0, 1.0, float("inf"))],
)
def test_impossible_times_are_refused(wrong):
    good = Summary(1.0, 1.0, 1.0, 1.0, 5, 5)
    with pytest.raises(ValueError, match="positive and in order"):
        compare_times(good, Summary(*wrong, 1.0, 5, 5), floor=0.02)
    with pytest.raises(ValueError, match="floor"):
        compare_times(good, good, floor=-0.1)
