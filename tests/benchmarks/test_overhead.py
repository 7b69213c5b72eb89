import pytest
import torch

import effnet_fast
from benchmarks.overhead import host_overhead, without_kernels

SIZE = 64


@pytest.fixture(scope="module")
def engine(b0):
    return effnet_fast.InferenceEngine(b0, batch_size=3, image_size=SIZE)


def test_without_kernels_everything_is_called_and_nothing_computed(engine):
    images = torch.randn(2, 3, SIZE, SIZE)
    expected = engine(images)
    with without_kernels(engine, 2) as program:
        arena = engine._runner.arena
        arena[: 1 << 12] = 7  # any kernel that ran would write here: the stem's output lies first
        before = arena.clone()
        logits = engine(torch.randn(2, 3, SIZE, SIZE))
        assert torch.equal(arena, before)
        assert logits.shape == expected.shape
        names = [name for step in program.passes for name in step.names]
    assert names == [layer.name for layer in engine.plan.layers]
    assert torch.equal(engine(images), expected)


def test_the_parts_make_the_whole_and_the_dispatcher_is_most_of_operators_called_one_by_one(engine):
    found = host_overhead(engine, torch.randn(1, 3, SIZE, SIZE), rounds=3, min_seconds=0.02)
    assert found.operators == len(engine.plan.layers)
    assert found.program + found.around == found.total
    assert 0 < found.program < found.dispatched / 2
    assert 10 < found.total < 10_000  # microseconds


def test_a_batch_that_is_none_is_refused(engine):
    with pytest.raises(ValueError, match="4 images; allowed: 1 to 3"):
        host_overhead(engine, torch.randn(4, 3, SIZE, SIZE))
