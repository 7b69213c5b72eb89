"""Streams in which batches fail: as many come out as went in, whatever raises, wherever."""

from __future__ import annotations

import itertools
import logging
import random
import threading

import pytest
import torch
from torch import Tensor

from effnet_fast import InferenceEngine
from effnet_fast.inference.stream import Stream
from tests.inference.fake_engine import (
    FakeEngine,
    Pulls,
    assert_threads_end,
    batch,
    eventually,
    first,
    threads,
)

SIZE = 32


@pytest.fixture(autouse=True)
def every_thread_ends():
    yield
    assert_threads_end()


def _random_source(generator: random.Random, count: int) -> tuple[list, list[int], dict[int, type]]:
    """Values for `Pulls` with failures of every kind, the numbers that must come out, {index: error type}."""
    values, good, bad = [], [], {}
    for i in range(count):
        kind = generator.choice(["good"] * 4 + ["shape", "type", "inside", "iterable"])
        if kind == "good":
            values.append(batch(i, generator.randint(1, 3)))
            good.append(i)
        else:
            value, error = {
                "shape": (torch.zeros(3), ValueError),
                "type": ([1, 2], TypeError),
                "inside": (batch(-1), RuntimeError),
                "iterable": (OSError(f"no batch {i}"), OSError),
            }[kind]
            values.append(value)
            bad[i] = error
    return values, good, bad


@pytest.mark.parametrize("on_error", ["raise", "skip", "callable"])
@pytest.mark.parametrize("seed", range(12))
def test_count_in_is_count_out_with_failures_of_every_kind(on_error, seed):
    generator = random.Random(seed)
    values, good, bad = _random_source(generator, generator.randint(1, 60))
    seen: list[tuple[int, type]] = []
    given = on_error if on_error != "callable" else lambda i, error: seen.append((i, type(error)))
    stream = Stream(FakeEngine(), Pulls(values), depth=generator.randint(1, 6), on_error=given)
    results: list[int | type] = []
    while True:
        try:
            results.append(first(next(stream)))
        except StopIteration:
            break
        except Exception as error:
            results.append(type(error))
    assert (stream.received, stream.yielded, stream.failed) == (len(values), len(good), len(bad))
    if on_error == "raise":
        assert results == [bad.get(i, i) for i in range(len(values))]
    else:
        assert results == good
        failures = seen if on_error == "callable" else [(i, type(error)) for i, error in stream.errors]
        assert failures == list(bad.items())


def test_an_error_is_the_engines_own_in_the_batchs_place(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=SIZE)
    images = torch.randn(2, 3, SIZE, SIZE)
    stream = engine.stream([images, images[:, :2], images.double(), images])
    assert torch.equal(next(stream), engine(images))
    with pytest.raises(ValueError, match=r"images must have shape \[N, 3, 32, 32\] .*, got \[2, 2, 32, 32\]"):
        next(stream)
    with pytest.raises(TypeError, match="got float64"):
        next(stream)
    assert torch.equal(next(stream), engine(images))
    with pytest.raises(StopIteration):
        next(stream)


def test_a_generator_that_fails_in_the_middle_is_reported_and_ends_the_stream():
    def failing():
        yield batch(0)
        yield batch(1)
        raise ZeroDivisionError("in the middle")

    stream = Stream(FakeEngine(), failing())
    assert [first(next(stream)), first(next(stream))] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        next(stream)
    assert list(stream) == []
    assert (stream.received, stream.yielded, stream.failed) == (3, 2, 1)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_iterator_that_fails_for_ever_ends_the_stream(on_error):
    source = Pulls(itertools.chain([batch(7)], (OSError(f"failure {i}") for i in itertools.count())))
    stream = Stream(FakeEngine(), source, on_error=on_error)
    assert first(next(stream)) == 7
    for _ in range(100 if on_error == "raise" else 0):
        with pytest.raises(OSError, match="failure"):
            next(stream)
    with pytest.raises(RuntimeError, match=r"failed 100 times in a row.*failure 99") as caught:
        next(stream)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(stream) == []
    assert (stream.received, stream.yielded, stream.failed) == (101, 1, 100)
    assert source.count == 101


def test_failures_that_an_item_separates_do_not_end_the_stream():
    failures = [OSError(i) for i in range(99)]
    values = [*failures, batch(1), *failures, batch(2)]
    stream = Stream(FakeEngine(), Pulls(values), on_error="skip")
    assert [first(logits) for logits in stream] == [1, 2]
    assert stream.failed == 198


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("on_error", ["raise", "skip", print])
def test_an_interruption_in_the_iterable_ends_the_stream_in_its_place(fatal, on_error):
    source = Pulls([batch(0), fatal("stop"), batch(2)])
    stream = Stream(FakeEngine(), source, on_error=on_error)
    assert first(next(stream)) == 0
    with pytest.raises(fatal, match="stop"):
        next(stream)
    assert list(stream) == []
    assert source.count == 2
    assert stream.received == stream.yielded == 1


def test_an_interruption_in_the_engine_ends_the_stream():
    class Interrupted(FakeEngine):
        def __call__(self, images: Tensor) -> Tensor:
            if images[0] == 1:
                raise KeyboardInterrupt
            return super().__call__(images)

    stream = Stream(Interrupted(), map(batch, itertools.count()))
    assert first(next(stream)) == 0
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert eventually(lambda: not threads())  # the reader's too, while the stream is kept
    assert list(stream) == []


def test_skipped_batches_are_logged_and_kept_without_what_they_hold_in_memory(caplog):
    def read(i: int) -> Tensor:
        images = batch(i)
        if i == 3:
            try:
                raise OSError("a cause")
            except OSError as error:
                raise ValueError(f"batch {i} is damaged") from error
        return images

    with caplog.at_level(logging.WARNING, logger="effnet_fast"):
        stream = Stream(FakeEngine(), map(read, range(6)), on_error="skip")
        assert [first(logits) for logits in stream] == [0, 1, 2, 4, 5]
    assert [record.getMessage() for record in caplog.records] == [
        "stream: batch 3 is left out: ValueError: batch 3 is damaged"
    ]
    ((index, error),) = stream.errors
    assert (index, str(error)) == (3, "batch 3 is damaged")
    assert error.__traceback__ is None
    assert error.__cause__.__traceback__ is None


def test_the_last_thousand_errors_are_kept():
    stream = Stream(FakeEngine(), (batch(-1) for _ in range(1100)), on_error="skip")
    assert list(stream) == []
    assert stream.failed == stream.received == 1100
    assert [index for index, _ in stream.errors] == list(range(100, 1100))


def test_a_callable_runs_in_the_callers_thread_and_its_own_error_is_raised():
    def refuse(index: int, error: Exception) -> None:
        assert threading.current_thread() is threading.main_thread()
        raise LookupError(f"batch {index}") from error

    stream = Stream(FakeEngine(), [batch(0), torch.zeros(1), batch(2)], on_error=refuse)
    assert first(next(stream)) == 0
    with pytest.raises(LookupError, match="batch 1"):
        next(stream)
    assert first(next(stream)) == 2
    assert (stream.yielded, stream.failed) == (2, 1)


def test_a_callable_may_close_the_stream():
    stream = Stream(
        FakeEngine(),
        map(batch, itertools.chain([0, -1], itertools.count())),
        on_error=lambda *_: stream.close(),
    )
    assert [first(logits) for logits in stream] == [0]
