"""Streams: the logits of every batch exactly once, in order, overlapped; several at a time; bad options."""

from __future__ import annotations

import operator
import threading
import time

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from effnet_fast import InferenceEngine
from effnet_fast.inference.stream import Stream
from tests.inference.fake_engine import FakeEngine, assert_threads_end, batch, first, threads

SIZE = 32


@pytest.fixture(autouse=True)
def every_thread_ends():
    yield
    assert_threads_end()


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(("kind", "layout"), [("float", "NCHW"), ("uint8", "NHWC")])
def test_a_stream_gives_what_calls_give(tiny, kind, layout, depth):
    engine = InferenceEngine(tiny, batch_size=3, image_size=SIZE, input=kind, layout=layout)
    shape = (3, SIZE, SIZE) if layout == "NCHW" else (SIZE, SIZE, 3)
    sizes = [3, 1, 0, 2, 7, 3, 0]
    if kind == "uint8":
        batches = [torch.randint(0, 256, (size, *shape), dtype=torch.uint8) for size in sizes]
    else:
        batches = [torch.randn(size, *shape) for size in sizes]
    stream = engine.stream(batches, depth=depth)
    results = list(stream)
    assert [len(logits) for logits in results] == sizes
    for logits, images in zip(results, batches, strict=True):
        assert logits.dtype == torch.float32
        assert torch.equal(logits, engine(images))
    assert (stream.received, stream.yielded, stream.failed) == (len(sizes), len(sizes), 0)


def test_an_empty_iterable_gives_nothing():
    stream = Stream(FakeEngine(), [])
    assert list(stream) == []
    assert next(stream, None) is None
    assert stream.received == stream.yielded == stream.failed == 0


def test_every_source_of_batches_is_read_once_and_in_order():
    for source in (
        [batch(i) for i in range(20)],
        (batch(i) for i in range(20)),
        map(batch, range(20)),
        torch.arange(20.0).repeat_interleave(2)[:, None].split(2),
    ):
        assert [first(logits) for logits in Stream(FakeEngine(), source)] == list(range(20))


class _Rows(Dataset):
    """Images 0..9 with labels; number 5 cannot be read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 5:
            raise OSError("image 5 cannot be read")
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator), index


def test_a_loader_with_forked_workers_after_the_engine_was_used(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=SIZE, input="uint8", layout="NHWC")
    rows = _Rows()
    expected = {
        start: engine(torch.stack([rows[start][0], rows[start + 1][0]]))
        for start in range(0, 10, 2)
        if start != 4
    }
    loader = DataLoader(rows, batch_size=2, num_workers=2, multiprocessing_context="fork")
    failures = []
    with engine.stream(
        map(operator.itemgetter(0), loader), on_error=lambda index, error: failures.append((index, error))
    ) as stream:
        results = list(stream)
    assert len(results) == len(expected) == 4
    for logits, other in zip(results, expected.values(), strict=True):
        assert torch.equal(logits, other)
    ((index, error),) = failures
    assert index == 2
    assert "image 5 cannot be read" in str(error)


def test_reading_computing_and_consuming_overlap():
    # Passed when the iterable, the engine and the consumer are at work at the same time.
    barrier = threading.Barrier(3, timeout=20)

    class Meeting(FakeEngine):
        def __call__(self, images: Tensor) -> Tensor:
            if 1 <= images[0] < 11:
                barrier.wait()
            return super().__call__(images)

    def meeting():
        for i in range(12):
            if i >= 2:
                barrier.wait()
            yield batch(i)

    results = []
    for logits in Stream(Meeting(), meeting(), depth=2):
        results.append(first(logits))
        if len(results) <= 10:
            barrier.wait()
    assert results == list(range(12))


def test_with_one_slot_reading_and_computing_take_turns():
    busy = threading.Lock()

    class Alone(FakeEngine):
        def __call__(self, images: Tensor) -> Tensor:
            assert busy.acquire(blocking=False)
            try:
                return super().__call__(images)
            finally:
                busy.release()

    def alone():
        for i in range(20):
            assert busy.acquire(blocking=False)
            time.sleep(0.001)
            busy.release()
            yield batch(i)

    assert [first(logits) for logits in Stream(Alone(seconds=0.001), alone(), depth=1)] == list(range(20))


def test_streams_of_one_engine_side_by_side_and_within_each_other(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=SIZE)
    batches = list(torch.randn(6, 2, 3, SIZE, SIZE))
    expected = [engine(images) for images in batches]

    def asking():
        for images in batches:
            engine(images.flip(0))
            yield images

    one, two = engine.stream(asking(), depth=2), engine.stream(batches[::-1], depth=1)
    for i in range(6):
        assert torch.equal(next(one), expected[i])
        assert torch.equal(next(two), expected[5 - i])
    assert list(one) == list(two) == []

    inner = engine.stream(batches, depth=1)
    outer = engine.stream((images for images, _ in zip(batches, inner, strict=True)), depth=1)
    for logits, other in zip(outer, expected, strict=True):
        assert torch.equal(logits, other)


@pytest.mark.parametrize(
    ("iterable", "options", "error", "message"),
    [
        (3, {}, TypeError, "iterable must give batches of images, got int, which is not iterable"),
        (None, {}, TypeError, "got NoneType"),
        (torch.zeros(4, 3, 2, 2), {}, TypeError, r"use images\.split\(batch_size\)"),
        ([], {"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ([], {"depth": 1.5}, TypeError, "depth must be an integer, got float"),
        (
            [],
            {"on_error": "ignore"},
            ValueError,
            'on_error must be "raise", "skip" or a callable, got \'ignore\'',
        ),
        ([], {"on_error": None}, ValueError, "on_error must be .*, got None"),
    ],
)
def test_bad_options_are_refused_at_once(iterable, options, error, message):
    with pytest.raises(error, match=message):
        Stream(FakeEngine(), iterable, **options)
    assert not threads()


def test_an_error_of_the_iterables_own_start_is_raised_as_it_is():
    class Broken:
        def __iter__(self):
            raise TypeError("not today")

    with pytest.raises(TypeError, match="not today"):
        Stream(FakeEngine(), Broken())


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("memory", ["pageable", "pinned", "device"])
def test_streams_of_a_gpu_give_what_calls_give(tiny, memory, cuda_graph):
    engine = InferenceEngine(tiny, batch_size=4, image_size=32, device="cuda", cuda_graph=cuda_graph)
    place = {"pageable": lambda x: x, "pinned": Tensor.pin_memory, "device": Tensor.cuda}[memory]
    batches = [place(torch.randn(1 + i % 9, 3, 32, 32)) for i in range(60)]
    expected = [engine(batch).cpu() for batch in batches]
    # Two at once, of one engine: their CUDA streams take turns at its memory.
    with engine.stream(batches) as first, engine.stream(batches) as second:
        for a, b, logits in zip(first, second, expected, strict=True):
            assert torch.equal(a, logits)
            assert torch.equal(b, logits)
