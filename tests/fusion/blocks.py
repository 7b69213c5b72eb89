"""Blocks of every kind, and what a `Block` computes: in float64, by plain formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import efficientnet_pytorch
import torch
import torch.nn.functional as F
from efficientnet_pytorch.model import MBConvBlock
from efficientnet_pytorch.utils import BlockArgs
from timm.layers import ConvNormAct, SEModule, convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    SqueezeExcite,
    UniversalInvertedResidual,
)
from torch import Tensor, nn
from torchvision.models import efficientnet as tv_efficientnet
from torchvision.models import mnasnet, mobilenetv2, mobilenetv3
from torchvision.ops.misc import Conv2dNormActivation, FrozenBatchNorm2d, SqueezeExcitation

import effnet_fast.nn as ours
from effnet_fast.fusion import parts
from effnet_fast.fusion.readers import READERS
from effnet_fast.fusion.spec import Block, Conv

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
}
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "hardsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
}


def interpret(block: Block, x: Tensor) -> Tensor:
    """What `block` computes, from the fields of the specification alone."""
    y = x
    for part in block.parts:
        if isinstance(part, Conv):
            y = _convolve(part, y)
        else:
            reduce, expand = part.reduce, part.expand
            hidden = torch.einsum("nc,kc->nk", y.mean((2, 3)), reduce.weight[:, :, 0, 0])
            hidden = ACTIVATIONS[part.activation](hidden + (0 if reduce.bias is None else reduce.bias))
            gates = torch.einsum("nk,ck->nc", hidden, expand.weight[:, :, 0, 0])
            gates = GATES[part.gate](gates + (0 if expand.bias is None else expand.bias))
            y = y * gates[:, :, None, None]
    return y + x if block.residual else y


def _convolve(part: Conv, x: Tensor) -> Tensor:
    conv, norm = part.conv, part.norm
    sides = part.padding
    if sides == "same":
        sides = [0, 0, 0, 0]
        for axis, size in enumerate(x.shape[2:]):
            total = max((-(-size // part.stride) - 1) * part.stride + part.kernel - size, 0)
            sides[axis], sides[axis + 2] = total // 2, total - total // 2
    top, left, bottom, right = sides
    y = F.conv2d(
        F.pad(x, (left, right, top, bottom)), conv.weight, conv.bias, part.stride, groups=conv.groups
    )
    if norm is not None:
        shape = (1, -1, 1, 1)
        y = (y - norm.running_mean.view(shape)) / (norm.running_var + norm.eps).sqrt().view(shape)
        if norm.weight is not None:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
    if part.scale is not None:
        y = y * part.scale.gamma.view(1, -1, 1, 1)
    return ACTIVATIONS[part.activation](y)


@torch.no_grad()
def randomise(module: nn.Module) -> nn.Module:
    """float64, evaluating, with every parameter and statistic away from its first value."""
    for each in module.double().modules():
        for name, tensor in (*each.named_parameters(recurse=False), *each.named_buffers(recurse=False)):
            if name == "running_var":
                tensor.uniform_(0.5, 2)
            elif tensor.dim() == 1:
                tensor.normal_(0.5, 0.5)  # gammas among them, of both signs
            elif tensor.dim() > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5)
    return module.eval()


def read(module: nn.Module) -> Block:
    return READERS[parts.class_name(module)](module)


def _silu(**options) -> dict:
    return {"act_layer": nn.SiLU, **options}


def tv_mbconv(expand: float, kernel: int, stride: int, channels: int, out: int) -> nn.Module:
    config = tv_efficientnet.MBConvConfig(expand, kernel, stride, channels, out, 1)
    return tv_efficientnet.MBConv(config, 0.2, partial(nn.BatchNorm2d, eps=1e-2))


def tv_fused(expand: float, stride: int, channels: int, out: int) -> nn.Module:
    config = tv_efficientnet.FusedMBConvConfig(expand, 3, stride, channels, out, 1)
    return tv_efficientnet.FusedMBConv(config, 0.2, nn.BatchNorm2d)


def tv_v3(
    kernel: int, expanded: int, squeezes: bool, activation: str, stride: int, dilation: int = 1
) -> nn.Module:
    config = mobilenetv3.InvertedResidualConfig(
        16, kernel, expanded, 16, squeezes, activation, stride, dilation, 1.0
    )
    return mobilenetv3.InvertedResidual(config, nn.BatchNorm2d)


def lukemelas(
    expand: int, stride: object, image: object, *, out: int = 16, se: float | None = 0.25
) -> nn.Module:
    _, options = efficientnet_pytorch.utils.get_model_params("efficientnet-b0", {})
    arguments = BlockArgs(1, 3, stride, expand, 16, out, se, True)
    return MBConvBlock(arguments, options, image_size=image)


HARD = partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU)
SE = partial(SqueezeExcite, rd_ratio=0.25)
UIB = partial(UniversalInvertedResidual, layer_scale_init_value=0.1)

KINDS: dict[str, Callable[[], nn.Module]] = {
    "timm ir": lambda: InvertedResidual(16, 16, exp_ratio=3, se_layer=SE, drop_path_rate=0.2, **_silu()),
    "timm ir stride": lambda: InvertedResidual(16, 24, 5, 2, exp_ratio=2, act_layer=nn.ReLU6),
    "timm ir same": lambda: InvertedResidual(
        16, 16, 5, 2, exp_ratio=2, pad_type="same", se_layer=SE, **_silu()
    ),
    "timm ir hard": lambda: InvertedResidual(16, 16, exp_ratio=2, se_layer=HARD, act_layer=nn.Hardswish),
    "timm ir noskip": lambda: InvertedResidual(16, 16, exp_ratio=2, noskip=True),
    "timm ir wide": lambda: InvertedResidual(
        8, 8, exp_ratio=2, exp_kernel_size=3, pw_kernel_size=3, **_silu()
    ),
    "timm ds": lambda: DepthwiseSeparableConv(16, 16, se_layer=SE, **_silu()),
    "timm ds act": lambda: DepthwiseSeparableConv(16, 24, stride=2, pw_act=True, act_layer=nn.ReLU6),
    "timm ds same": lambda: DepthwiseSeparableConv(16, 16, 5, pad_type="same", **_silu()),
    "timm er": lambda: EdgeResidual(16, 16, exp_ratio=2, se_layer=SE, **_silu()),
    "timm er stride": lambda: EdgeResidual(16, 24, stride=2, exp_ratio=2, force_in_chs=8, pad_type="same"),
    "timm cn": lambda: ConvBnAct(16, 16, 3, skip=True, **_silu()),
    "timm cn stride": lambda: ConvBnAct(16, 16, 3, stride=2, skip=True, act_layer=nn.Hardswish),
    "timm uib": lambda: UIB(16, 16, 3, 5, 0, exp_ratio=2),
    "timm uib stride": lambda: UIB(16, 24, 5, 3, 3, stride=2, exp_ratio=2, pad_type="same", se_layer=SE),
    "timm uib start": lambda: UIB(16, 16, 3, 0, 0, exp_ratio=2),
    "timm uib end": lambda: UIB(16, 16, 0, 0, 5, exp_ratio=2),
    "timm uib pointwise": lambda: UniversalInvertedResidual(
        16, 16, 0, 0, 0, exp_ratio=2, layer_scale_init_value=None, **_silu()
    ),
    "timm conv": lambda: ConvNormAct(8, 16, 3, 2, padding="same", act_layer=nn.SiLU),
    "timm conv linear": lambda: ConvNormAct(8, 16, 1, apply_act=False),
    "timm conv no norm": lambda: ConvNormAct(8, 16, 3, bias=True, apply_norm=False, drop_layer=nn.Dropout),
    "timm se": lambda: SqueezeExcite(16, act_layer=nn.SiLU),
    "timm se module": lambda: SEModule(16, rd_channels=4, gate_layer="hard_sigmoid"),
    "timm frozen": lambda: freeze_batch_norm_2d(InvertedResidual(16, 16, exp_ratio=2, **_silu())),
    "timm sync": lambda: convert_sync_batchnorm(InvertedResidual(16, 16, exp_ratio=2, **_silu())),
    "torchvision mbconv": lambda: tv_mbconv(3, 3, 1, 16, 16),
    "torchvision mbconv stride": lambda: tv_mbconv(1, 5, 2, 16, 24),
    "torchvision fused": lambda: tv_fused(2, 1, 16, 16),
    "torchvision fused stride": lambda: tv_fused(2, 2, 16, 24),
    "torchvision fused one": lambda: tv_fused(1, 1, 16, 16),
    "torchvision v2": lambda: mobilenetv2.InvertedResidual(16, 16, 1, 2),
    "torchvision v2 separable": lambda: mobilenetv2.InvertedResidual(16, 24, 2, 1),
    "torchvision v3": lambda: tv_v3(5, 32, True, "HS", 1),
    "torchvision v3 relu": lambda: tv_v3(3, 16, False, "RE", 1),
    "torchvision v3 stride": lambda: tv_v3(3, 32, True, "RE", 2),
    "torchvision mnasnet": lambda: mnasnet._InvertedResidual(16, 16, 5, 1, 3),
    "torchvision mnasnet stride": lambda: mnasnet._InvertedResidual(16, 24, 3, 2, 3),
    "torchvision se": lambda: SqueezeExcitation(16, 4, activation=nn.SiLU),
    "torchvision conv": lambda: Conv2dNormActivation(8, 16, 3, 2, activation_layer=nn.Hardswish),
    "torchvision conv bias": lambda: Conv2dNormActivation(8, 16, 3, norm_layer=None),
    "torchvision conv frozen": lambda: Conv2dNormActivation(8, 16, 3, norm_layer=FrozenBatchNorm2d),
    "torchvision conv sync": lambda: nn.SyncBatchNorm.convert_sync_batchnorm(Conv2dNormActivation(8, 16, 3)),
    "lukemelas dynamic": lambda: lukemelas(3, 1, None),
    "lukemelas dynamic stride": lambda: lukemelas(3, [2], None, out=24),
    "lukemelas static": lambda: lukemelas(3, 1, 13),
    # Static padding is that of the nominal size (even: 0 before, 1 behind; odd: 1 and 1), whatever comes.
    "lukemelas static stride": lambda: lukemelas(1, [2], (12, 13), out=24, se=None),
    # [1] == 1 is false: no skip, though nothing else is against one.
    "lukemelas stride in a list": lambda: lukemelas(3, [1], None),
    "ours mbconv": lambda: ours.MBConv(16, 16, expanded_channels=32, squeeze_channels=4, drop_path_rate=0.2),
    "ours mbconv same": lambda: ours.MBConv(
        16, 24, expanded_channels=32, kernel_size=5, stride=2, padding="same", activation="relu6"
    ),
    "ours separable": lambda: ours.DepthwiseSeparable(16, 16, squeeze_channels=4, gate="hardsigmoid"),
    "ours fused": lambda: ours.FusedMBConv(16, 16, expanded_channels=32),
    "ours conv block": lambda: ours.ConvBlock(16, 16),
    "ours conv": lambda: ours.ConvNormAct(8, 16, 3, 2, padding="same"),
    "ours se": lambda: ours.SqueezeExcite(16, 4),
}


def inverted_residual(**options) -> nn.Module:
    return InvertedResidual(16, 16, exp_ratio=2, **{"act_layer": nn.SiLU, **options})


def exchange(path: str, value: object) -> Callable[[nn.Module], None]:
    """Exchanges a child or an attribute, as users do."""

    def change(module: nn.Module) -> None:
        owner, _, name = path.rpartition(".")
        setattr(module.get_submodule(owner), name, value)

    return change


class OtherSequential(nn.Sequential):
    """One that may do something else."""
