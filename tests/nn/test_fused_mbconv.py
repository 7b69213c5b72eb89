"""FusedMBConv and ConvBlock against their formulas, timm's blocks, and the properties of any block."""

from __future__ import annotations

import pytest
import timm.models._efficientnet_blocks as timm_blocks
import torch
import torch.nn.functional as F
from torch import nn

from effnet_fast.nn import ConvBlock, FusedMBConv


def randomise_norms(module: nn.Module) -> nn.Module:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return module


def make(kind: str, in_channels: int = 8, out_channels: int = 8, **options) -> nn.Module:
    if kind == "fused":
        return FusedMBConv(in_channels, out_channels, expanded_channels=20, **options)
    return ConvBlock(in_channels, out_channels, **options)


@pytest.mark.parametrize("size", [(10, 9), (8, 8), (1, 3)])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out_channels", [8, 16])
@pytest.mark.parametrize("kind", ["fused", "conv"])
def test_block_formula(kind, out_channels, stride, kernel_size, padding, size):
    options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "norm_eps": 1e-3}
    block = randomise_norms(make(kind, 8, out_channels, **options)).double().eval()
    x = torch.randn(2, 8, *size, dtype=torch.float64)

    def norm(module, y):
        return F.batch_norm(y, module.running_mean, module.running_var, module.weight, module.bias, eps=1e-3)

    dense = block.expand if kind == "fused" else block.conv
    top, left, bottom, right = dense.padding_for(*size)
    padded = F.pad(x, (left, right, top, bottom))
    expected = F.silu(norm(dense.norm, F.conv2d(padded, dense.conv.weight, stride=stride)))
    if kind == "fused":
        expected = norm(block.project.norm, F.conv2d(expected, block.project.conv.weight))
    if stride == 1 and out_channels == 8:
        expected = expected + x  # of a ConvBlock, too, after the activation
    torch.testing.assert_close(block(x), expected)
    assert block.has_skip == (stride == 1 and out_channels == 8)


@pytest.mark.parametrize("stride", [1, 2])
def test_timms_blocks_give_the_same(stride):
    x = torch.randn(2, 8, 9, 10)
    act = {"act_layer": nn.SiLU}
    pairs = [
        (
            FusedMBConv(8, 8, expanded_channels=24, stride=stride),
            timm_blocks.EdgeResidual(8, 8, stride=stride, exp_ratio=3, **act),
        ),
        (ConvBlock(8, 8, stride=stride), timm_blocks.ConvBnAct(8, 8, 3, stride=stride, skip=True, **act)),
    ]
    for ours, theirs in pairs:
        randomise_norms(ours).eval()
        # The modules stand in the same order in both.
        theirs.load_state_dict(
            dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)), strict=True
        )
        torch.testing.assert_close(ours(x), theirs.eval()(x))


@pytest.mark.parametrize("kind", ["fused", "conv"])
def test_block_does_not_write_to_its_input(kind):
    block = make(kind)
    for mode in (block.train(), block.eval()):
        x = torch.randn(2, 8, 6, 6)
        before = x.clone()
        mode(x)
        assert torch.equal(x, before)


@pytest.mark.parametrize("kind", ["fused", "conv"])
def test_block_drops_its_branch_but_never_the_shortcut(kind):
    block = make(kind, drop_path_rate=0.5).train()
    x = torch.randn(64, 8, 4, 4)
    dropped = (block(x) == x).flatten(1).all(1)
    assert 10 < dropped.sum() < 54


@pytest.mark.parametrize("kind", ["fused", "conv"])
def test_gradients(kind):
    block = make(kind, 3, 3, padding="same")
    block(torch.randn(2, 3, 5, 5)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    block = randomise_norms(block).double().eval()
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("kind", ["fused", "conv"])
def test_block_compiles_without_graph_breaks_for_any_size(kind, padding):
    block = make(kind, 8, 16, stride=2, padding=padding).eval()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for size in ((8, 8), (9, 9), (12, 11)):
            x = torch.randn(2, 8, *size)
            torch.testing.assert_close(compiled(x), block(x))


@pytest.mark.parametrize("kind", ["fused", "conv"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "kernel_size must be odd and positive, got 2"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"activation": "gelu"}, "activation must be one of silu.*got 'gelu'"),
        ({"drop_path_rate": 1.0}, "rate must be at least 0 and less than 1, got 1.0"),
    ],
)
def test_bad_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **arguments)
