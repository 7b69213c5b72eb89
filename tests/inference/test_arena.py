"""Placement in the arena: no overlap ever, and little waste."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_fast.inference.arena import ALIGNMENT, Interval, aligned, check_disjoint, extent, peak, place

intervals = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10)), min_size=0, max_size=24
).map(
    lambda rows: [
        Interval(str(i), size, first, first + length) for i, (size, first, length) in enumerate(rows)
    ]
)


@settings(max_examples=200, deadline=None)
@given(intervals)
def test_place_never_overlaps_what_is_live_together(rows):
    offsets = place(rows)
    size = extent(rows, offsets)
    assert set(offsets) == {row.name for row in rows}
    for row in rows:
        assert offsets[row.name] % ALIGNMENT == 0
        assert 0 <= offsets[row.name] <= size - row.nbytes
    # Independent of the module's own check: paint every byte of every step.
    for step in range(42):
        painted: dict[int, str] = {}
        for row in rows:
            if row.first <= step <= row.last and row.nbytes:
                for line in range(
                    offsets[row.name] // ALIGNMENT, (offsets[row.name] + aligned(row.nbytes)) // ALIGNMENT
                ):
                    assert painted.setdefault(line, row.name) == row.name
    assert peak(rows) <= size <= sum(aligned(row.nbytes) for row in rows)


@settings(max_examples=50, deadline=None)
@given(intervals)
def test_place_is_deterministic(rows):
    assert place(rows) == place(list(reversed(rows)))


def test_place_reuses_memory_of_the_dead():
    chain = [Interval(str(i), 1024, i, i + 1) for i in range(10)]
    offsets = place(chain)
    assert extent(chain, offsets) == 2 * 1024 == peak(chain)


def test_place_takes_the_smallest_gap_that_fits():
    rows = [
        Interval("a", 640, 0, 2), Interval("hole", 512, 0, 1), Interval("b", 448, 0, 2),
        Interval("small hole", 256, 0, 1), Interval("c", 224, 0, 2), Interval("late", 192, 2, 2),
    ]  # fmt: skip
    offsets = place(rows)
    assert offsets["late"] == offsets["small hole"]


def test_place_refuses_two_of_a_name():
    with pytest.raises(ValueError, match=r"different names, got \['x', 'x'\]"):
        place([Interval("x", 1, 0, 0), Interval("x", 2, 1, 1)])


def test_check_disjoint_catches_a_wrong_plan():
    rows = [Interval("a", 100, 0, 1), Interval("b", 100, 1, 2), Interval("c", 100, 2, 3)]
    check_disjoint(rows, {"a": 0, "b": 128, "c": 0})
    with pytest.raises(RuntimeError, match="b and c are live together"):
        check_disjoint(rows, {"a": 0, "b": 128, "c": 64})
