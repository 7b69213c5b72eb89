"""ConvNormAct: its padding against TensorFlow's formula, its arithmetic, its errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from efficientnet_pytorch.utils import Conv2dDynamicSamePadding
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame as TimmConv2dSame
from torch import nn

from effnet_fast.nn import ACTIVATIONS, ConvNormAct, same_padding

KERNELS = (1, 3, 5, 7)
SIZES = (1, 2, 3, 4, 7, 8, 13, 14, 56, 57)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (112, 5, 2, (1, 2)),
        (14, 7, 2, (2, 3)),
        (15, 3, 2, (1, 1)),
        (15, 5, 2, (2, 2)),
        (14, 3, 1, (1, 1)),
        (7, 5, 1, (2, 2)),
        (14, 1, 1, (0, 0)),
        (1, 5, 2, (2, 2)),
    ],
)
def test_same_padding_has_tensorflows_values(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(size=st.integers(1, 2000), kernel=st.sampled_from(KERNELS), stride=st.integers(1, 4))
def test_same_padding_covers_every_output(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    positions = -(-size // stride)
    assert 0 <= after - before <= 1
    assert (size + before + after - kernel) // stride + 1 == positions
    if before + after:  # nothing is padded that no window reads
        assert (positions - 1) * stride + kernel == size + before + after


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_convolution_is_the_one_that_padding_for_describes(padding, kernel, stride):
    module = ConvNormAct(4, 4, kernel, stride, groups=4, padding=padding, activation="identity")
    for height, width in [(h, w) for h in SIZES for w in (8, 13)]:
        x = torch.randn(2, 4, height, width)
        top, left, bottom, right = module.padding_for(height, width)
        padded = F.pad(x, (left, right, top, bottom))
        expected = F.conv2d(padded, module.conv.weight, None, stride, groups=4)
        torch.testing.assert_close(module.conv(x), expected)
        assert expected.shape[2:] == (-(-height // stride), -(-width // stride))


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9), (9, 8), (1, 1), (2, 3)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_convolution_equals_timm_and_efficientnet_pytorch(size, kernel, stride):
    ours = ConvNormAct(6, 6, kernel, stride, groups=6, padding="same")
    x = torch.randn(2, 6, *size)
    for peer in (TimmConv2dSame, Conv2dDynamicSamePadding):
        theirs = peer(6, 6, kernel, stride=stride, groups=6, bias=False)
        theirs.load_state_dict(ours.conv.state_dict())
        torch.testing.assert_close(ours.conv(x), theirs(x), rtol=0, atol=0)


def test_only_strided_same_convolutions_pad_at_run_time():
    assert type(ConvNormAct(4, 4, 3, 1, padding="same").conv) is nn.Conv2d
    assert type(ConvNormAct(4, 4, 3, 2, padding="symmetric").conv) is nn.Conv2d
    strided = ConvNormAct(4, 4, 3, 2, padding="same")
    assert isinstance(strided.conv, nn.Conv2d)
    seen = []
    strided.conv.register_forward_hook(lambda *_: seen.append(1))
    strided(torch.randn(1, 4, 8, 8))
    assert seen, "hooks on the convolution must see the call"


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_forward_is_activation_of_norm_of_conv(activation):
    module = ConvNormAct(5, 7, 3, activation=activation, norm_eps=1e-3, norm_momentum=0.01).eval()
    nn.init.uniform_(module.norm.running_mean, -1, 1)
    nn.init.uniform_(module.norm.running_var, 0.5, 2)
    x = torch.randn(2, 5, 6, 6)
    normed = module.norm(module.conv(x))
    expected = normed if activation == "identity" else getattr(F, activation)(normed)
    torch.testing.assert_close(module(x), expected)
    assert (module.activation_name, module.kernel_size, module.stride) == (activation, 3, 1)
    assert (module.norm.eps, module.norm.momentum, module.conv.bias) == (1e-3, 0.01, None)


def test_channels_last_is_kept():
    x = torch.randn(2, 8, 8, 8).to(memory_format=torch.channels_last)
    for padding in ("symmetric", "same"):
        module = ConvNormAct(8, 8, 3, 2, groups=8, padding=padding).to(memory_format=torch.channels_last)
        assert module(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd and positive, got 4"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be odd and positive, got 0"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"padding": "valid"}, ValueError, r"padding must be one of \('symmetric', 'same'\), got 'valid'"),
        ({"padding": 1}, TypeError, "padding must be a string.*got int"),
        ({"activation": "gelu"}, ValueError, "activation must be one of silu, relu.*got 'gelu'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ConvNormAct(4, 4, **arguments)
