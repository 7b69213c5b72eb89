"""SqueezeExcite, DropPath, DepthwiseSeparable and MBConv against their formulas."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effnet_fast.nn import DepthwiseSeparable, DropPath, MBConv, SqueezeExcite


def randomise_norms(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)


@pytest.mark.parametrize("gate", ["sigmoid", "hardsigmoid"])
@pytest.mark.parametrize("activation", ["silu", "relu", "hardswish"])
def test_squeeze_excite_formula(activation, gate):
    module = SqueezeExcite(12, 5, activation=activation, gate=gate)
    x = torch.randn(3, 12, 7, 5)
    hidden = module.reduce.weight.flatten(1) @ x.mean((2, 3)).T + module.reduce.bias[:, None]
    logits = module.expand.weight.flatten(1) @ getattr(F, activation)(hidden) + module.expand.bias[:, None]
    expected = x * getattr(F, gate)(logits).T[:, :, None, None]
    torch.testing.assert_close(module(x), expected)
    assert (module.activation_name, module.gate_name) == (activation, gate)


def test_squeeze_excite_errors():
    with pytest.raises(ValueError, match="squeeze_channels must be at least 1, got 0"):
        SqueezeExcite(8, 0)
    with pytest.raises(ValueError, match="gate must be one of sigmoid, hardsigmoid, got 'tanh'"):
        SqueezeExcite(8, 2, gate="tanh")


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    module = DropPath(0.3).train()
    per_image = module(torch.ones(20_000, 3, 1, 2)).flatten(1)
    assert (per_image == per_image[:, :1]).all(), "one decision for an image"
    kept = per_image[:, 0] != 0
    torch.testing.assert_close(per_image[kept], torch.full_like(per_image[kept], 1 / 0.7))
    # Standard deviation of the fraction: sqrt(0.3 * 0.7 / 20000) = 0.0032; four of them.
    assert abs(kept.float().mean().item() - 0.7) < 0.013


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero():
    x = torch.randn(4, 2, 3, 3)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_drop_path_rate_range(rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and less than 1, got"):
        DropPath(rate)


@pytest.mark.parametrize("squeeze", [None, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(8, 8), (8, 16)])
@pytest.mark.parametrize("expands", [False, True])
def test_block_is_the_sequence_of_its_parts(expands, in_channels, out_channels, stride, squeeze):
    options = {"kernel_size": 5, "stride": stride, "squeeze_channels": squeeze, "padding": "same"}
    if expands:
        block = MBConv(in_channels, out_channels, expanded_channels=24, **options)
    else:
        block = DepthwiseSeparable(in_channels, out_channels, **options)
    block.eval()
    randomise_norms(block)
    x = torch.randn(2, in_channels, 10, 9)

    y = block.expand(x) if expands else x
    y = block.depthwise(y)
    if squeeze is not None:
        y = block.squeeze_excite(y)
    y = block.project(y)
    assert block.has_skip == (stride == 1 and in_channels == out_channels)
    if block.has_skip:
        y = y + x
    torch.testing.assert_close(block(x), y)

    assert (block.squeeze_excite is None) == (squeeze is None)
    assert block.project.activation_name == "identity"
    assert block.depthwise.conv.groups == block.depthwise.conv.in_channels


def test_block_does_not_write_to_its_input():
    for block in (
        MBConv(8, 8, expanded_channels=16, squeeze_channels=2),
        DepthwiseSeparable(8, 8, squeeze_channels=2),
    ):
        for mode in (block.train(), copy.deepcopy(block).eval()):
            x = torch.randn(2, 8, 6, 6)
            before = x.clone()
            mode(x)
            assert torch.equal(x, before)


def test_block_drops_its_branch_but_never_the_shortcut():
    block = MBConv(8, 8, expanded_channels=16, drop_path_rate=0.5).train()
    x = torch.randn(64, 8, 4, 4)
    dropped = (block(x) == x).flatten(1).all(1)
    assert 10 < dropped.sum() < 54
    assert block.drop_path.rate == 0.5


def test_gradients_reach_every_parameter():
    block = MBConv(8, 8, expanded_channels=16, squeeze_channels=2, stride=1)
    block(torch.randn(2, 8, 5, 5)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gradcheck_in_float64():
    block = MBConv(3, 3, expanded_channels=6, squeeze_channels=2, padding="same").double().eval()
    randomise_norms(block)
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_block_compiles_without_graph_breaks_for_any_size(padding):
    block = MBConv(8, 16, expanded_channels=16, squeeze_channels=2, stride=2, padding=padding).eval()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for size in ((8, 8), (9, 9), (12, 11)):
            x = torch.randn(2, 8, *size)
            torch.testing.assert_close(compiled(x), block(x))
