"""What no longer computes what its class says is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, ConvNormAct, GroupNormAct, SEModule
from timm.models._efficientnet_blocks import ConvBnAct, SqueezeExcite
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

import effnet_fast.nn as ours
from effnet_fast.fusion import parts
from effnet_fast.fusion.readers import READERS
from effnet_fast.fusion.spec import Unsupported
from tests.fusion.blocks import (
    SE,
    UIB,
    OtherSequential,
    exchange,
    inverted_residual,
    lukemelas,
    read,
    tv_mbconv,
    tv_v3,
)


def _unchanged(module: nn.Module) -> None:
    """The module is refused as it was built."""


class _Odd(Tensor):
    """A tensor with arithmetic of its own."""


REPLACED = "was replaced on the object"
MADE = "made from other parameters"
REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], object], str]] = {
    "child": (inverted_residual, exchange("conv_pw", nn.Linear(16, 32)), "Linear is no plain convolution"),
    "conv1d": (
        inverted_residual,
        exchange("conv_pw", nn.Conv1d(16, 32, 1)),
        "Conv1d is no plain convolution",
    ),
    "s2d": (partial(inverted_residual, s2d=1), _unchanged, "space-to-depth"),
    "blur": (
        partial(inverted_residual, stride=2, aa_layer="blur"),
        _unchanged,
        "anti-aliasing filter is a BlurPool2d",
    ),
    "conv blur": (
        lambda: ConvNormAct(8, 8, 3, 2, aa_layer="avg"),
        _unchanged,
        "anti-aliasing filter is a AvgPool2d",
    ),
    "dilation": (partial(inverted_residual, dilation=2), _unchanged, "dilation"),
    "groups": (partial(inverted_residual, group_size=8), _unchanged, "4 groups of 8 channels"),
    "mixed": (
        partial(inverted_residual, dw_kernel_size=[3, 5]),
        _unchanged,
        "MixedConv2d is no plain convolution",
    ),
    "group norm": (
        partial(inverted_residual, norm_layer=partial(GroupNormAct, group_size=8)),
        _unchanged,
        "GroupNormAct is no batch norm",
    ),
    "gelu": (partial(inverted_residual, act_layer=nn.GELU), _unchanged, "no kernel for the activation GELU"),
    "attention": (
        partial(inverted_residual, se_layer=timm.layers.GlobalContext),
        _unchanged,
        "attention is a GlobalContext",
    ),
    "gate": (
        lambda: inverted_residual(se_layer=SE),
        exchange("se.gate", nn.Tanh()),
        "no kernel for the gate Tanh",
    ),
    "se kernel": (
        lambda: inverted_residual(se_layer=SE),
        exchange("se.conv_reduce", nn.Conv2d(32, 8, 3)),
        "not 1x1 convolutions",
    ),
    "se width": (
        lambda: inverted_residual(se_layer=SE),
        exchange("se.conv_expand", nn.Conv2d(8, 1, 1)),
        "does not give back",
    ),
    "se padding": (
        lambda: inverted_residual(se_layer=SE),
        exchange("se.conv_reduce", nn.Conv2d(32, 8, 1, padding=1)),
        "not 1x1",
    ),
    "se groups": (
        lambda: SqueezeExcite(16, rd_ratio=1),
        exchange("conv_expand", nn.Conv2d(16, 16, 1, groups=16)),
        "not 1x1 convolutions",
    ),
    "drop path": (inverted_residual, exchange("drop_path", nn.Linear(1, 1)), "its drop path is a Linear"),
    "drop": (inverted_residual, exchange("bn1.drop", nn.AlphaDropout()), "is a AlphaDropout"),
    "forward of a child": (inverted_residual, exchange("conv_dw.forward", lambda x: x), REPLACED),
    "forward": (inverted_residual, exchange("forward", lambda x: x), REPLACED),
    "forward of an activation": (inverted_residual, exchange("bn2.act.forward", torch.relu), REPLACED),
    "other method": (
        lambda: SqueezeExcitation(16, 4),
        exchange("_scale", torch.ones_like),
        "_scale of a Squeeze",
    ),
    "pruned": (inverted_residual, lambda block: prune.l1_unstructured(block.conv_pwl, "weight", 0.5), MADE),
    "pruned norm": (
        inverted_residual,
        lambda block: prune.l1_unstructured(block.bn3, "bias", 0.5),
        f"bias of a BatchNormAct2d is {MADE}",
    ),
    "weight norm": (
        inverted_residual,
        lambda block: parametrizations.weight_norm(block.conv_dw),
        "ParametrizedConv2d is no plain",
    ),
    "spectral norm": (inverted_residual, lambda block: nn.utils.spectral_norm(block.conv_dw), MADE),
    "odd tensor": (
        inverted_residual,
        lambda block: setattr(
            block.conv_pw, "weight", nn.Parameter(torch.ones(32, 16, 1, 1).as_subclass(_Odd))
        ),
        "a tensor of a Conv2d is a _Odd",
    ),
    "one input channel": (
        lambda: ConvBnAct(16, 16, 3),
        lambda block: setattr(block.conv, "weight", nn.Parameter(block.conv.weight[:, :1].clone())),
        "a weight of 16 x 1 x 3 x 3 in a convolution of 16 x 16 x 3 x 3",
    ),
    "norm width": (inverted_residual, exchange("bn1", nn.BatchNorm2d(1)), "another number of channels"),
    "statistics": (
        inverted_residual,
        exchange("bn1", nn.BatchNorm2d(32, track_running_stats=False)),
        "without running statistics",
    ),
    "reflection": (
        inverted_residual,
        exchange("conv_dw", nn.Conv2d(32, 32, 3, padding=1, groups=32, padding_mode="reflect")),
        "padding_mode='reflect'",
    ),
    "even kernel": (
        inverted_residual,
        exchange("conv_dw", nn.Conv2d(32, 32, 2, groups=32)),
        "a 2 x 2 kernel",
    ),
    "oblong kernel": (
        inverted_residual,
        exchange("conv_dw", nn.Conv2d(32, 32, (3, 1), groups=32)),
        "a 3 x 1 kernel",
    ),
    "strides": (
        inverted_residual,
        exchange("conv_dw", nn.Conv2d(32, 32, 3, (1, 2), groups=32)),
        "strides that differ",
    ),
    "clamp": (
        partial(inverted_residual, act_layer=nn.ReLU6),
        exchange("bn1.act.max_val", 3.0),
        "a ReLU6 between",
    ),
    "no attribute": (
        inverted_residual,
        lambda block: delattr(block, "has_skip"),
        "not as in the versions we know",
    ),
    "uib child": (lambda: UIB(16, 16, 3, 3), exchange("dw_start", nn.ReLU()), "its dw_start is a ReLU"),
    "layer scale": (
        lambda: UIB(16, 16, 3, 3),
        exchange("layer_scale", nn.ReLU()),
        "a ReLU behind a convolution",
    ),
    "layer scale width": (
        lambda: UIB(16, 16, 3, 3),
        exchange("layer_scale.gamma", nn.Parameter(torch.ones(1))),
        "a layer scale of another number",
    ),
    "layer scale activation": (
        lambda: UIB(16, 16, 3, 3),
        exchange("pw_proj.bn.act", nn.ReLU()),
        "a layer scale behind an activation",
    ),
    "maximum": (lambda: SEModule(16, add_maxpool=True), _unchanged, "pools the maximum"),
    "se norm": (lambda: SEModule(16, norm_layer=nn.BatchNorm2d), _unchanged, "BatchNorm2d inside"),
    "sequential": (
        lambda: tv_mbconv(2, 3, 1, 16, 16),
        lambda block: setattr(block, "block", OtherSequential(*block.block)),
        "a OtherSequential where an nn.Sequential was",
    ),
    "inner sequential": (
        lambda: tv_mbconv(2, 3, 1, 16, 16),
        lambda block: block.block.insert(0, OtherSequential()),
        "OtherSequential is no plain convolution",
    ),
    "stochastic depth": (
        lambda: tv_mbconv(2, 3, 1, 16, 16),
        exchange("stochastic_depth", nn.ReLU()),
        "depth is a ReLU",
    ),
    "pool": (
        lambda: tv_mbconv(2, 3, 1, 16, 16),
        exchange("block.2.avgpool", nn.AdaptiveMaxPool2d(1)),
        "pools with AdaptiveMaxPool2d",
    ),
    "pool size": (
        lambda: SqueezeExcitation(16, 4),
        exchange("avgpool", nn.AdaptiveAvgPool2d(2)),
        "pools with",
    ),
    "torchvision dilation": (lambda: tv_v3(5, 32, True, "HS", 1, dilation=2), _unchanged, "dilation"),
    "torchvision gelu": (
        lambda: Conv2dNormActivation(8, 8, activation_layer=nn.GELU, inplace=None),
        _unchanged,
        "no kernel for the activation GELU",
    ),
    "torchvision group norm": (
        lambda: Conv2dNormActivation(8, 8, norm_layer=partial(nn.GroupNorm, 2)),
        _unchanged,
        "GroupNorm is no batch norm",
    ),
    "two activations": (
        lambda: Conv2dNormActivation(8, 8, norm_layer=BatchNormAct2d),
        _unchanged,
        "two activations behind one convolution",
    ),
    "three behind": (
        lambda: Conv2dNormActivation(8, 8),
        lambda block: block.append(nn.ReLU()),
        "ReLU is no plain convolution",
    ),
    "empty": (
        lambda: Conv2dNormActivation(8, 8),
        lambda block: block.__delitem__(slice(0, 3)),
        "nothing in it",
    ),
    "static padding": (
        lambda: lukemelas(3, [2], 12),
        exchange("_depthwise_conv.static_padding", nn.ReflectionPad2d(1)),
        "padded by a ReflectionPad2d",
    ),
    "padding with ones": (
        lambda: lukemelas(3, [2], 12),
        exchange("_depthwise_conv.static_padding.value", 1.0),
        "padded by a ZeroPad2d",
    ),
    "crop": (
        lambda: lukemelas(3, [2], 12),
        exchange("_depthwise_conv.static_padding", nn.ZeroPad2d(-1)),
        "crops its input",
    ),
    "padding twice": (
        lambda: lukemelas(3, 1, None),
        exchange("_depthwise_conv.padding", (1, 1)),
        "on top of TensorFlow's",
    ),
    "lukemelas swish": (lambda: lukemelas(3, 1, None), exchange("_swish", nn.GELU()), "the activation GELU"),
    "our child": (
        lambda: ours.MBConv(16, 16, expanded_channels=32),
        exchange("expand", nn.Conv2d(16, 32, 1)),
        "Conv2d where a ConvNormAct was",
    ),
    "our drop path": (
        lambda: ours.ConvBlock(16, 16),
        exchange("drop_path", nn.ReLU()),
        "its drop path is a ReLU",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_changed_is_refused_with_the_reason(case) -> None:
    make, change, words = REFUSED[case]
    module = make()
    reader = READERS[parts.class_name(module)]
    change(module)
    with pytest.raises(Unsupported) as refused:
        reader(module)
    assert words in str(refused.value)


def test_a_forward_replaced_in_the_class_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(SqueezeExcite, "forward", lambda self, x: x)
    with pytest.raises(Unsupported, match="forward of SqueezeExcite was replaced in the class"):
        read(inverted_residual(se_layer=SE))
    assert read(inverted_residual()).residual
