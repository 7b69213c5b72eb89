"""Streams hold `depth` batches, and end when they are closed, dropped, or the interpreter exits."""

from __future__ import annotations

import contextlib
import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from torch import Tensor

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


@pytest.fixture(autouse=True)
def every_thread_ends():
    yield
    assert_threads_end()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_no_more_than_depth_batches_are_held(depth):
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def make(i: int) -> Tensor:
        nonlocal most
        images = batch(i)
        alive.add(images)
        most = max(most, len(alive))
        return images

    source = Pulls(map(make, range(60)))
    stream = Stream(FakeEngine(), source, depth=depth)
    for i, logits in enumerate(stream):
        assert first(logits) == i
        # What is in the reader's hands belongs to one of the slots; the caller has given back i + 1.
        assert source.count <= i + 1 + depth
        if i % 10 == 0:  # a slow consumer: the reader comes to its limit and no further
            assert eventually(lambda i=i: source.count == min(i + 1 + depth, 61))
            time.sleep(0.01)
            assert source.count == min(i + 1 + depth, 61)
    assert 1 <= most <= depth


def test_results_are_not_kept():
    release = threading.Event()

    def waiting():
        yield from map(batch, range(3))
        release.wait(30)

    stream = Stream(FakeEngine(), waiting())
    results = [weakref.ref(next(stream)) for _ in range(3)]
    assert eventually(lambda: all(result() is None for result in results))
    release.set()


def test_close_stops_the_threads_and_the_iterable_is_not_asked_again():
    source = Pulls(map(batch, itertools.count()))
    stream = Stream(FakeEngine(), source, depth=3)
    assert first(next(stream)) == 0
    stream.close()
    assert not threads()
    pulled = source.count
    assert pulled <= 1 + 3
    assert list(stream) == []
    assert next(stream, None) is None
    stream.close()
    assert source.count == pulled
    assert stream.yielded == 1


def test_close_ends_a_generator_and_drops_what_was_held():
    ended = []
    held: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def numbers():
        try:
            for i in itertools.count():
                images = batch(i)
                held.add(images)
                yield images
                del images
        finally:
            ended.append(True)

    stream = Stream(FakeEngine(seconds=0.02), numbers())
    next(stream)
    stream.close()
    assert ended == [True]
    gc.collect()
    assert not held


def test_after_close_nothing_more_is_computed():
    calls = 0

    class Counting(FakeEngine):
        def __call__(self, images: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return super().__call__(images)

    source = Pulls(map(batch, range(8)))
    stream = Stream(Counting(seconds=0.05), source, depth=8)
    assert eventually(lambda: source.count == 8)
    before = calls
    stream.close()
    assert eventually(lambda: not threads())
    assert calls <= before + 1 < 8


def test_leaving_the_with_block_closes_also_on_an_error():
    def leave_by_error() -> None:
        with stream:
            next(stream)
            raise LookupError

    stream = Stream(FakeEngine(), map(batch, itertools.count()))
    with pytest.raises(LookupError):
        leave_by_error()
    assert not threads()
    assert next(stream, None) is None


def test_close_does_not_wait_for_an_iterable_that_is_stuck():
    release = threading.Event()

    def stuck():
        yield batch(0)
        release.wait(30)
        yield batch(1)

    stream = Stream(FakeEngine(), stuck())
    next(stream)
    begin = time.monotonic()
    stream.close()
    assert time.monotonic() - begin < 5
    assert next(stream, None) is None
    release.set()


def test_close_from_another_thread_wakes_the_consumer():
    release = threading.Event()

    def stuck():
        release.wait(30)
        yield batch(0)

    stream = Stream(FakeEngine(), stuck())
    timer = threading.Timer(0.05, stream.close)
    timer.start()
    assert list(stream) == []
    release.set()
    timer.join()


def test_close_from_within_the_iterable():
    streams, closed = [], []

    def closing():
        yield batch(0)
        streams[0].close()
        closed.append(True)
        yield batch(1)

    streams.append(Stream(FakeEngine(), closing(), depth=1))
    assert [first(logits) for logits in streams[0]] == [0]
    assert eventually(lambda: closed == [True])


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_dropped_stream_stops_its_threads(taken):
    source = Pulls(map(batch, itertools.count()))
    stream = Stream(FakeEngine(), source)
    for _ in range(taken):
        next(stream)
    assert threads()
    dropped = weakref.ref(stream)
    del stream
    gc.collect()
    assert dropped() is None
    assert eventually(lambda: not threads())


def test_a_raised_error_does_not_keep_the_stream():
    stream = Stream(FakeEngine(), itertools.chain([torch.zeros(1)], map(batch, itertools.count())))
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            next(stream)
        assert stream.failed == 1
        dropped = weakref.ref(stream)
        del stream
        assert eventually(lambda: dropped() is None, seconds=2)
    finally:
        gc.enable()


_EXIT = """
import itertools, sys, time, torch
from effnet_fast.inference.stream import Stream

class Engine:
    device = torch.device("cpu")
    def __call__(self, images):
        return (images @ images).sum(1, keepdim=True)  # 30 ms: the exit comes within it

def batches():
    for i in itertools.count():
        if i == 6:
            {stuck}
        yield torch.ones(1200, 1200)

torch.set_num_threads(1)
stream = Stream(Engine(), batches(), depth=8)
other = Stream(Engine(), batches(), depth=2)
print(int(next(stream)[0]))
{last}
"""


@pytest.mark.parametrize(
    ("stuck", "last", "status"),
    [("pass", "", 0), ("time.sleep(60)", "time.sleep(0.3)", 0), ("pass", "sys.exit(3)", 3)],
    ids=["running", "reader stuck", "exit"],
)
def test_the_interpreter_ends_with_a_stream_half_consumed(stuck, last, status):
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _EXIT.format(stuck=stuck, last=last)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr == ""
    assert done.stdout == "1440000\n"
    assert time.monotonic() - begin < 50
