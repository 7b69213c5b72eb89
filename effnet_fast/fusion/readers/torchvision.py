"""torchvision's blocks: nn.Sequentials of convolutions, norms, activations, squeeze-excites, and a skip."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from effnet_fast.fusion.parts import (
    ACTIVATIONS,
    IDLE,
    class_name,
    read_conv,
    read_squeeze_excite,
    require_idle,
)
from effnet_fast.fusion.spec import Block, Conv, SqueezeExcite, Unsupported

__all__ = ["DECLINED", "READERS"]

_MODELS = "torchvision.models"
_MISC = "torchvision.ops.misc"
_SQUEEZE_EXCITE = f"{_MISC}.SqueezeExcitation"
_CONV_NORM_ACTIVATIONS = (f"{_MISC}.Conv2dNormActivation", f"{_MISC}.ConvNormActivation")
# These run their children in order and do nothing else.
_SEQUENTIALS = ("torch.nn.modules.container.Sequential", *_CONV_NORM_ACTIVATIONS)


def _mbconv(block: nn.Module) -> Block:
    if block.use_res_connect:
        require_idle(block.stochastic_depth, "its stochastic depth")
    return Block(_sequence(block.block), bool(block.use_res_connect))


def _mobilenetv2_residual(block: nn.Module) -> Block:
    return Block(_sequence(block.conv), bool(block.use_res_connect))


def _mobilenetv3_residual(block: nn.Module) -> Block:
    return Block(_sequence(block.block), bool(block.use_res_connect))


def _mnasnet_residual(block: nn.Module) -> Block:
    return Block(_sequence(block.layers), bool(block.apply_residual))


def _squeeze_excite(module: nn.Module) -> SqueezeExcite:
    pool = module.avgpool
    mean = class_name(pool) == "torch.nn.modules.pooling.AdaptiveAvgPool2d" and pool.output_size in (
        1,
        (1, 1),
    )
    if not mean:
        raise Unsupported(f"a squeeze-excite that pools with {pool}")
    return read_squeeze_excite(module.fc1, module.fc2, module.activation, module.scale_activation)


def _conv_norm_activation(module: nn.Module) -> Block:
    return Block(_parts(_leaves(module)))


def _sequence(container: nn.Module) -> tuple[Conv | SqueezeExcite, ...]:
    # A subclass may have a forward of its own, so only these are containers.
    if class_name(container) not in _SEQUENTIALS:
        raise Unsupported(f"a {type(container).__name__} where an nn.Sequential was")
    return _parts(_leaves(container))


def _parts(leaves: list[nn.Module]) -> tuple[Conv | SqueezeExcite, ...]:
    """The parts of a sequence of convolution [norm] [activation] and squeeze-excites."""
    parts: list[Conv | SqueezeExcite] = []
    while leaves:
        first = leaves.pop(0)
        if class_name(first) == _SQUEEZE_EXCITE:
            parts.append(_squeeze_excite(first))
            continue
        norm = activation = None
        if leaves and not _starts_part(leaves[0]) and class_name(leaves[0]) not in ACTIVATIONS:
            norm = leaves.pop(0)
        if leaves and not _starts_part(leaves[0]):
            activation = leaves.pop(0)
        parts.append(read_conv(first, norm, activation))
    return tuple(parts)


def _leaves(container: nn.Module) -> list[nn.Module]:
    """What a Sequential runs, in order, without what does nothing in evaluation."""
    leaves: list[nn.Module] = []
    for child in container:
        if class_name(child) in _SEQUENTIALS:
            leaves += _leaves(child)
        elif class_name(child) not in IDLE:
            leaves.append(child)
    return leaves


def _starts_part(module: nn.Module) -> bool:
    """Whether `module` does not belong to the convolution before it."""
    return isinstance(module, nn.Conv2d) or class_name(module) == _SQUEEZE_EXCITE


READERS: Mapping[str, Callable[[nn.Module], Block]] = {
    f"{_MODELS}.efficientnet.MBConv": _mbconv,
    f"{_MODELS}.efficientnet.FusedMBConv": _mbconv,
    f"{_MODELS}.mobilenetv2.InvertedResidual": _mobilenetv2_residual,
    f"{_MODELS}.mobilenetv3.InvertedResidual": _mobilenetv3_residual,
    f"{_MODELS}.mnasnet._InvertedResidual": _mnasnet_residual,
    _SQUEEZE_EXCITE: lambda module: Block((_squeeze_excite(module),)),
    **dict.fromkeys(_CONV_NORM_ACTIVATIONS, _conv_norm_activation),
}

_QUANTISED = "made for quantisation, with observers in place of the arithmetic"
DECLINED: Mapping[str, str] = {
    f"{_MODELS}.quantization.mobilenetv2.QuantizableInvertedResidual": _QUANTISED,
    f"{_MODELS}.quantization.mobilenetv3.QuantizableInvertedResidual": _QUANTISED,
    f"{_MODELS}.quantization.mobilenetv3.QuantizableSqueezeExcitation": _QUANTISED,
    f"{_MISC}.Conv3dNormActivation": "a convolution of volumes",
}
