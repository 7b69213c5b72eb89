"""Copies of an engine are engines of their own; and an engine in a forked child."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest
import torch

from effnet_fast import InferenceEngine


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)


@pytest.fixture
def engine(tiny) -> InferenceEngine:
    return InferenceEngine(
        tiny, batch_size=4, image_size=32, dtype=torch.bfloat16, input="uint8", layout="NHWC"
    )


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))]
)
def test_copies_share_nothing_that_is_written(engine, images, duplicate):
    expected = engine(images)
    other = duplicate(engine)
    assert repr(other) == repr(engine)
    assert other._runner.arena.data_ptr() != engine._runner.arena.data_ptr()
    with engine._lock:  # a call of one is under way
        assert torch.equal(other(images), expected)
    assert torch.equal(torch.compile(lambda x: other(x), backend="eager")(images), expected)


def test_copies_keep_what_was_asked_for(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32, backend="reference", cuda_graph=False)
    assert set(copy.deepcopy(engine).backends.values()) == {"reference"}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_without_its_weights_is_not_copied(tiny, duplicate):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32, keep_weights=False)
    with pytest.raises(RuntimeError, match="keep_weights=False cannot be copied or pickled: its float32"):
        duplicate(engine)


def test_a_child_forked_during_a_call_can_call(engine, images):
    context = multiprocessing.get_context("fork")
    expected = engine(images)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(torch.equal(engine(images), expected)), daemon=True)
    with engine._lock:  # as another thread of this process holds it
        child.start()
    answered = receiver.poll(30)
    if not answered:
        child.kill()
    child.join()
    assert answered
    assert receiver.recv()
