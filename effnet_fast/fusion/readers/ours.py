"""The blocks of `effnet_fast.nn`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from effnet_fast.fusion.parts import class_name, read_conv, read_squeeze_excite, require_idle
from effnet_fast.fusion.spec import Block, Conv, SqueezeExcite, Unsupported
from effnet_fast.nn import (
    ConvBlock,
    ConvNormAct,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
)
from effnet_fast.nn import SqueezeExcite as SqueezeExciteModule

__all__ = ["DECLINED", "READERS"]


def _mbconv(block: nn.Module) -> Block:
    return Block((_conv(block.expand), *_depthwise_and_project(block)), _has_skip(block))


def _depthwise_separable(block: nn.Module) -> Block:
    return Block(_depthwise_and_project(block), _has_skip(block))


def _fused_mbconv(block: nn.Module) -> Block:
    return Block((_conv(block.expand), _conv(block.project)), _has_skip(block))


def _conv_block(block: nn.Module) -> Block:
    return Block((_conv(block.conv),), _has_skip(block))


def _depthwise_and_project(block: nn.Module) -> tuple[Conv | SqueezeExcite, ...]:
    squeeze = ()
    if block.squeeze_excite is not None:
        _require_exact(block.squeeze_excite, SqueezeExciteModule)
        squeeze = (_squeeze_excite(block.squeeze_excite),)
    return (_conv(block.depthwise), *squeeze, _conv(block.project))


def _conv(module: nn.Module) -> Conv:
    _require_exact(module, ConvNormAct)
    return _conv_norm_act(module)


def _conv_norm_act(module: nn.Module) -> Conv:
    return read_conv(module.conv, module.norm, module.activation)


def _squeeze_excite(module: nn.Module) -> SqueezeExcite:
    return read_squeeze_excite(module.reduce, module.expand, module.activation, module.gate)


def _has_skip(block: nn.Module) -> bool:
    if block.has_skip:
        require_idle(block.drop_path, "its drop path")
    return bool(block.has_skip)


def _require_exact(module: nn.Module, cls: type[nn.Module]) -> None:
    if class_name(module) != _name(cls):
        raise Unsupported(f"a {class_name(module)} where a {cls.__name__} was")


def _name(cls: type[nn.Module]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


READERS: Mapping[str, Callable[[nn.Module], Block]] = {
    _name(MBConv): _mbconv,
    _name(DepthwiseSeparable): _depthwise_separable,
    _name(FusedMBConv): _fused_mbconv,
    _name(ConvBlock): _conv_block,
    _name(ConvNormAct): lambda module: Block((_conv_norm_act(module),)),
    _name(SqueezeExciteModule): lambda module: Block((_squeeze_excite(module),)),
}
DECLINED: Mapping[str, str] = {}
