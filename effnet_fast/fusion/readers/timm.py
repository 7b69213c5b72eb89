"""timm's blocks: what each class's forward computes, read from its children. Nothing of timm is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from effnet_fast.fusion.parts import (
    class_name,
    is_identity,
    read_conv,
    read_squeeze_excite,
    require_idle,
)
from effnet_fast.fusion.spec import Block, Conv, SqueezeExcite, Unsupported

__all__ = ["DECLINED", "READERS"]

_BLOCKS = "timm.models._efficientnet_blocks"
_LAYERS = "timm.layers"
_CONV_NORM_ACT = f"{_LAYERS}.conv_bn_act.ConvNormAct"


def _inverted_residual(block: nn.Module) -> Block:
    _require_no_resampling(block)
    parts = (
        read_conv(block.conv_pw, block.bn1),
        read_conv(block.conv_dw, block.bn2),
        *_attention(block.se),
        read_conv(block.conv_pwl, block.bn3),
    )
    return Block(parts, _has_skip(block))


def _depthwise_separable(block: nn.Module) -> Block:
    # `has_pw_act` only tells; the activation after the projection is the one in bn2.
    _require_no_resampling(block)
    parts = (
        read_conv(block.conv_dw, block.bn1),
        *_attention(block.se),
        read_conv(block.conv_pw, block.bn2),
    )
    return Block(parts, _has_skip(block))


def _edge_residual(block: nn.Module) -> Block:
    _require_no_resampling(block)
    parts = (
        read_conv(block.conv_exp, block.bn1),
        *_attention(block.se),
        read_conv(block.conv_pwl, block.bn2),
    )
    return Block(parts, _has_skip(block))


def _conv_bn_act(block: nn.Module) -> Block:
    _require_no_resampling(block)
    return Block((read_conv(block.conv, block.bn1),), _has_skip(block))


def _universal_inverted_residual(block: nn.Module) -> Block:
    names = ("dw_start", "pw_exp", "dw_mid", "se", "pw_proj", "dw_end")
    present = [name for name in names if not is_identity(getattr(block, name))]
    scale = None if is_identity(block.layer_scale) else block.layer_scale
    if scale is not None and present[-1:] == ["se"]:
        raise Unsupported("a layer scale behind a squeeze-excite")
    parts: list[Conv | SqueezeExcite] = []
    for name in present:
        child = getattr(block, name)
        if name == "se":
            parts += _attention(child)
        elif class_name(child) == _CONV_NORM_ACT:
            parts.append(_conv_norm_act(child, scale if name == present[-1] else None))
        else:
            raise Unsupported(f"its {name} is a {type(child).__name__}")
    return Block(tuple(parts), _has_skip(block))


def _conv_norm_act(module: nn.Module, scale: nn.Module | None = None) -> Conv:
    _require_no_resampling(module)
    norm = module.bn
    if class_name(norm) == "torch.nn.modules.container.Sequential":
        # apply_norm=False: nothing, or what drops the output in training.
        for child in norm:
            require_idle(child, "what stands for the norm")
        norm = None
    return read_conv(module.conv, norm, scale=scale)


def _squeeze_excite(module: nn.Module) -> SqueezeExcite:
    return read_squeeze_excite(module.conv_reduce, module.conv_expand, module.act1, module.gate)


def _se_module(module: nn.Module) -> SqueezeExcite:
    if module.add_maxpool:
        raise Unsupported("a squeeze-excite that pools the maximum as well")
    if not is_identity(module.bn):
        raise Unsupported(f"a squeeze-excite with a {type(module.bn).__name__} inside")
    return read_squeeze_excite(module.fc1, module.fc2, module.act, module.gate)


_ATTENTIONS: Mapping[str, Callable[[nn.Module], SqueezeExcite]] = {
    f"{_BLOCKS}.SqueezeExcite": _squeeze_excite,
    f"{_LAYERS}.squeeze_excite.SEModule": _se_module,
}


def _attention(module: nn.Module) -> tuple[SqueezeExcite, ...]:
    """A block's `se`: none, or one."""
    if is_identity(module):
        return ()
    if class_name(module) not in _ATTENTIONS:
        raise Unsupported(f"its attention is a {type(module).__name__}")
    return (_ATTENTIONS[class_name(module)](module),)


def _require_no_resampling(block: nn.Module) -> None:
    """Space-to-depth before, an anti-aliasing filter behind a convolution. Older versions had neither."""
    if getattr(block, "conv_s2d", None) is not None:
        raise Unsupported("space-to-depth")
    if getattr(block, "aa", None) is not None:
        require_idle(block.aa, "its anti-aliasing filter")


def _has_skip(block: nn.Module) -> bool:
    if block.has_skip:
        require_idle(block.drop_path, "its drop path")
    return bool(block.has_skip)


READERS: Mapping[str, Callable[[nn.Module], Block]] = {
    f"{_BLOCKS}.InvertedResidual": _inverted_residual,
    f"{_BLOCKS}.DepthwiseSeparableConv": _depthwise_separable,
    f"{_BLOCKS}.EdgeResidual": _edge_residual,
    f"{_BLOCKS}.ConvBnAct": _conv_bn_act,
    f"{_BLOCKS}.UniversalInvertedResidual": _universal_inverted_residual,
    _CONV_NORM_ACT: lambda module: Block((_conv_norm_act(module),)),
    f"{_BLOCKS}.SqueezeExcite": lambda module: Block((_squeeze_excite(module),)),
    f"{_LAYERS}.squeeze_excite.SEModule": lambda module: Block((_se_module(module),)),
}

DECLINED: Mapping[str, str] = {
    f"{_BLOCKS}.CondConvResidual": "its convolutions are mixed for each image (CondConv)",
    f"{_BLOCKS}.MobileAttention": "attention",
    f"{_LAYERS}.mixed_conv2d.MixedConv2d": "convolutions of several kernel sizes side by side",
    f"{_LAYERS}.cond_conv2d.CondConv2d": "a convolution that is mixed for each image (CondConv)",
}
