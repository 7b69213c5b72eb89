"""Buckets of captured graphs: which rest is padded, and that calibration finds the faster way everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_fast.inference.schedule import Schedule, buckets, calibrate


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))],
)
def test_buckets_are_powers_of_two_and_the_batch(batch, expected):
    assert buckets(batch) == expected


@given(st.integers(1, 600))
def test_before_calibration_every_rest_is_padded_to_the_next_bucket(batch):
    schedule = Schedule.always_padded(batch)
    for images in range(1, batch + 1):
        bucket = schedule.choose(images)
        assert bucket in buckets(batch)
        assert images <= bucket
        assert bucket == batch or bucket < 2 * images
    assert schedule.choose(batch + 1) is None


@given(
    batch=st.integers(1, 300),
    launches=st.floats(0, 2),
    image=st.floats(0.001, 1),
    graph_base=st.floats(0, 1),
    graph_image=st.floats(0.001, 1),
)
def test_calibration_takes_the_faster_way_for_every_number(batch, launches, image, graph_base, graph_image):
    def graph(bucket: int) -> float:
        return graph_base + graph_image * bucket

    def eager(count: int) -> float:
        return launches + image * count

    schedule = calibrate(batch, graph, eager)
    for images in range(1, batch + 1):
        bucket = next(b for b in buckets(batch) if b >= images)
        eagerly = images < bucket and eager(images) < graph(bucket)
        assert schedule.choose(images) == (None if eagerly else bucket)


def test_calibration_measures_little():
    calls = []
    calibrate(256, lambda bucket: 100.0, lambda count: calls.append(count) or float(count))
    assert len(calls) <= sum(max(1, bucket.bit_length()) for bucket in buckets(256))
