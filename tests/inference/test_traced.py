"""An engine inside torch.compile: one operator of the graph, without a break, for any number of images."""

from __future__ import annotations

import gc

import pytest
import torch

from effnet_fast import InferenceEngine


def test_compiled_callers_have_no_graph_break(tiny):
    engine = InferenceEngine(tiny, batch_size=4, image_size=32)
    compiled = torch.compile(lambda x: engine(x * 2).softmax(1), fullgraph=True, backend="aot_eager")
    for count in (3, 5, 9):
        images = torch.randn(count, 3, 32, 32)
        torch.testing.assert_close(compiled(images), engine(images * 2).softmax(1))
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    assert not compiled(images).requires_grad


def test_compiled_callers_keep_engines_apart(tiny, tiny_with):
    engines = [InferenceEngine(m, batch_size=4, image_size=32) for m in (tiny, tiny_with(num_classes=7))]
    compiled = [torch.compile(lambda x, e=e: e(x) + 1, backend="aot_eager") for e in engines]
    images = torch.randn(3, 3, 32, 32)
    for engine, call in zip(engines, compiled, strict=True):
        assert torch.equal(call(images), engine(images) + 1)


def test_errors_in_a_compiled_caller_are_the_engines(tiny):
    engine = InferenceEngine(tiny, batch_size=4, image_size=32)
    compiled = torch.compile(lambda x: engine(x), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"images must have shape \[N, 3, 32, 32\]"):
        compiled(torch.randn(2, 3, 32, 31))


def test_the_operator_of_an_engine_that_is_gone_says_so(tiny):
    engine = InferenceEngine(tiny, batch_size=4, image_size=32)
    number, device = engine._number, engine.device
    call = torch.ops.effnet_fast.run_engine.default
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(call(images, number, 10, device), engine(images))
    del engine
    gc.collect()
    with pytest.raises(RuntimeError, match=r"not in this process .* use engine\.as_module\(\)"):
        call(images, number, 10, device)


@pytest.mark.parametrize("strict", [False, True])
def test_an_engine_is_not_exported(tiny, strict):
    engine = InferenceEngine(tiny, batch_size=4, image_size=32)

    class Caller(torch.nn.Module):
        def forward(self, x):
            return engine(x).softmax(1)

    with pytest.raises(Exception, match=r"export engine\.as_module\(\)"):
        torch.export.export(Caller(), (torch.randn(2, 3, 32, 32),), strict=strict)


def test_numbers_of_engines_are_not_guessed(tiny):
    """A graph that left its process must meet no engine there, not even the first."""
    numbers = {InferenceEngine(tiny, batch_size=1, image_size=32)._number for _ in range(3)}
    assert len(numbers) == 3
    assert min(numbers) > 2**32
