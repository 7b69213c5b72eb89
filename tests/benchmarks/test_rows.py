"""The times of a row keep their order however short they are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.contest import put_times
from benchmarks.ladder import LadderRunner
from benchmarks.limits import Limits
from benchmarks.rows import latency_columns, milliseconds, time_columns
from effnet_fast.measure import summarize
from tests.benchmarks.ladder_cases import small_case

#: Seconds of a call: a few hundred nanoseconds and more.
SECONDS = st.floats(2e-7, 2e-6)
ROUNDS = st.lists(st.lists(SECONDS, min_size=1, max_size=3), min_size=3, max_size=7)


def in_order(*times: float) -> bool:
    return list(times) == sorted(times)


@given(rounds=ROUNDS)
@settings(max_examples=200, deadline=None)
def test_percentiles_are_in_order_and_true_to_a_hundredth(rounds):
    summary = summarize(rounds)
    row = {"batch": 2}
    put_times({"peer": summary}, {"peer": row})
    assert row == {"batch": 2} | time_columns(summary, 2)  # a contest's row is a sweep's
    assert in_order(row["best_ms"], row["p20_ms"], row["median_ms"], row["p80_ms"])
    for name in ("best", "p20", "median", "p80"):
        assert row[f"{name}_ms"] == pytest.approx(1e3 * getattr(summary, name), rel=0.01)


@given(rounds=ROUNDS)
@settings(max_examples=200, deadline=None)
def test_single_calls_are_in_order_with_the_best_of_them(rounds):
    calls = [seconds for one in rounds for seconds in one]
    row = time_columns(summarize(rounds), 1) | latency_columns(calls)
    assert in_order(*(row[f"{name}_ms"] for name in ("best", "p20", "median", "p80", "p99")))


@given(rounds=ROUNDS)
@settings(max_examples=200, deadline=None)
def test_microseconds_of_a_rung_are_in_order(rounds):
    case = small_case()
    runner = LadderRunner(None, None, "cpu", Limits(1e9, None))
    row = {"batch": case.batch, "peer": "whole", "status": "ok"}
    put_times({"whole": summarize(rounds)}, {"whole": row})
    contest = type("Contest", (), {"case": case})
    runner.complete(contest, row)
    assert in_order(row["p20_us"], row["median_us"], row["p80_us"])


def test_a_nanosecond_is_kept():
    assert [milliseconds(1e-9 * count) for count in (1, 250, 1_234_567)] == [1e-6, 250e-6, 1.234567]
