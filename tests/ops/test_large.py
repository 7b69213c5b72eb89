"""Tensors of more than 2**31 elements: an image beyond them is computed like the first."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.testing import LOW_DTYPES, Target, targets

IMAGES, CHANNELS, SIDE = 65, 128, 512
LARGE = [
    pytest.param(
        target, marks=(pytest.mark.large, pytest.mark.slow if target.device == "cpu" else pytest.mark.gpu)
    )
    for target in targets()
    if not target.interpreted and target.backend != "reference" and target.isa in ("auto", "portable")
]
CALLS = {
    "pointwise_conv": lambda x: [x, *_weights(x, CHANNELS, 1), "silu", None, None],
    "depthwise_conv_pool": lambda x: [x, *_weights(x, 1, 3), 1, (1, 1, 1, 1), "silu"],
}


@pytest.fixture
def poisoned_outputs():
    """Not here: it writes gigabytes, and an unwritten image cannot be like the first."""


def _weights(x: torch.Tensor, inputs: int, kernel: int) -> list[torch.Tensor]:
    weight = torch.randn(CHANNELS, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
    return [weight.to(x), torch.randn(CHANNELS, device=x.device)]


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("large_target", LARGE, ids=str)
def test_an_image_past_2_31_elements_is_computed_like_the_first(op, large_target: Target) -> None:
    x = torch.zeros(IMAGES, SIDE, SIDE, CHANNELS, dtype=LOW_DTYPES[2], device=large_target.device)
    x = x.permute(0, 3, 1, 2)
    assert x[:-1].numel() >= 2**31
    x[0] = torch.randn(x.shape[1:]).to(x)
    x[-1] = x[0]
    results = large_target.run(op, CALLS[op](x))
    for y in (results,) if isinstance(results, torch.Tensor) else results:
        assert y[0].any()
        assert torch.equal(y[0], y[-1])
