"""Batch norm folded into the convolution before it: a trained network as plain convolutions.

In evaluation a batch norm is an affine map of each channel, so with s = gamma / sqrt(var + eps)

    norm(conv(x, w)) = conv(x, w * s) + (beta - mean * s)

Each layer is folded with its own eps, in float64, and stored in float32: the folded weights carry one
rounding. The result shares no memory with the model and does not keep it alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from effnet_fast.inference.recognition import (
    check_conv_norm_act,
    check_model,
    check_squeeze_excite,
    check_type,
)
from effnet_fast.nn import ConvBlock, DepthwiseSeparable, FusedMBConv, MBConv
from effnet_fast.nn.padding import conv_padding

__all__ = [
    "FoldedBlock",
    "FoldedConv",
    "FoldedConvBlock",
    "FoldedFusedBlock",
    "FoldedLinear",
    "FoldedNetwork",
    "FoldedSqueezeExcite",
    "fold",
    "fold_batch_norm",
    "folded_bytes",
    "on_host",
]


_Folded = TypeVar("_Folded")


@dataclass(frozen=True, eq=False)
class FoldedConv:
    """activation(conv(x, weight) + bias).

    Attributes:
        name: of the module that it was made from, as in `model.named_modules()`.
        weight: [Cout, Cin / groups, k, k] float32.
        bias: [Cout] float32.
        stride: along both axes.
        padding: "symmetric" or "same", resolved by `padding_for` once the input's size is known.
        activation: silu, relu, relu6, hardswish or identity.
    """

    name: str
    weight: Tensor
    bias: Tensor
    stride: int
    padding: str
    activation: str

    @property
    def in_channels(self) -> int:
        """Channels of the input of a convolution without groups."""
        return self.weight.shape[1]

    @property
    def out_channels(self) -> int:
        return self.weight.shape[0]

    @property
    def kernel(self) -> int:
        return self.weight.shape[-1]

    def padding_for(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Padding (top, left, bottom, right) of an input of this height and width."""
        return conv_padding(self.padding, (height, width), self.kernel, self.stride)


@dataclass(frozen=True, eq=False)
class FoldedSqueezeExcite:
    """gate(w2 @ activation(w1 @ mean + b1) + b2): w1 [S, C], b1 [S], w2 [C, S], b2 [C], float32."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    activation: str
    gate: str

    @property
    def squeeze(self) -> int:
        return self.w1.shape[0]


@dataclass(frozen=True, eq=False)
class FoldedBlock:
    """An MBConv block; `expand` is None where it has none. `residual`: its input is added at the end."""

    name: str
    expand: FoldedConv | None
    depthwise: FoldedConv
    squeeze_excite: FoldedSqueezeExcite | None
    project: FoldedConv
    residual: bool


@dataclass(frozen=True, eq=False)
class FoldedFusedBlock:
    """A FusedMBConv block: a k x k `expand`, a linear 1x1 `project`, and the input if `residual`."""

    name: str
    expand: FoldedConv
    project: FoldedConv
    residual: bool


@dataclass(frozen=True, eq=False)
class FoldedConvBlock:
    """One k x k convolution; `residual`: the input is added after its activation."""

    name: str
    conv: FoldedConv
    residual: bool


@dataclass(frozen=True, eq=False)
class FoldedLinear:
    """weight @ x + bias: weight [num_classes, C], bias [num_classes], float32."""

    name: str
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """stem -> blocks -> head -> mean over H and W -> classifier, for inference, at any image size."""

    stem: FoldedConv
    blocks: tuple[FoldedBlock | FoldedFusedBlock | FoldedConvBlock, ...]
    head: FoldedConv
    classifier: FoldedLinear

    @property
    def in_channels(self) -> int:
        return self.stem.in_channels

    @property
    def num_classes(self) -> int:
        return self.classifier.weight.shape[0]

    def convolutions(self) -> Iterator[FoldedConv]:
        """Every convolution, in order of use."""
        yield self.stem
        for block in self.blocks:
            parts = (getattr(block, part, None) for part in ("conv", "expand", "depthwise", "project"))
            yield from (part for part in parts if part is not None)
        yield self.head


def fold_batch_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, float32, of the convolution that equals conv(x, weight) followed by `norm` in
    evaluation.

    Args:
        weight: [Cout, ...], a convolution without bias.
        norm: its batch norm over Cout channels, with running statistics; with or without gamma and beta.

    Raises: ValueError where `norm` keeps no running statistics: it then has no fixed affine map.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("norm must track running statistics to be folded, got track_running_stats=False")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    folded = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return folded.float(), bias.float()


@torch.no_grad()
def fold(model: nn.Module) -> FoldedNetwork:
    """Fold every batch norm of `model`, an `EfficientNet` in evaluation mode; the model is not changed.

    Raises:
        TypeError: a part of the model, named by its path, is of a class that is not understood.
        ValueError: the model, or the module named, is in training mode (its batch norms would use the batch's
            own statistics, so that no folded network is equal to it), or was changed to compute something
            else; see `effnet_fast.inference.recognition`.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    check_model(model)
    stages = [
        (f"stages.{s}.{name}", block)
        for s, stage in _children(model.stages)
        for name, block in _children(stage)
    ]
    return FoldedNetwork(
        stem=_fold_conv("stem", model.stem),
        blocks=tuple(_fold_block(name, block) for name, block in stages),
        head=_fold_conv("head", model.head),
        classifier=_fold_linear("classifier", model.classifier),
    )


def on_host(folded: _Folded) -> _Folded:
    """`folded`, a network or a part of one, with its tensors in the CPU's memory."""
    if isinstance(folded, Tensor):
        return folded.cpu()
    if isinstance(folded, tuple):
        return tuple(on_host(part) for part in folded)
    if is_dataclass(folded):
        return replace(folded, **{f.name: on_host(getattr(folded, f.name)) for f in fields(folded)})
    return folded


def folded_bytes(folded: object) -> int:
    """Bytes of the tensors of `folded`, a network or a part of one."""
    if isinstance(folded, Tensor):
        return folded.nbytes
    if isinstance(folded, tuple):
        return sum(map(folded_bytes, folded))
    return sum(folded_bytes(getattr(folded, f.name)) for f in fields(folded)) if is_dataclass(folded) else 0


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return iter(module.named_children())


def _float(tensor: Tensor) -> Tensor:
    """A float32 copy that shares no memory with `tensor`."""
    return tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _fold_conv(name: str, module: nn.Module, *, depthwise: bool = False) -> FoldedConv:
    check_conv_norm_act(name, module, depthwise=depthwise)
    weight, bias = fold_batch_norm(module.conv.weight, module.norm)
    return FoldedConv(name, weight, bias, module.stride, module.padding, module.activation_name)


def _fold_squeeze_excite(name: str, module: nn.Module | None) -> FoldedSqueezeExcite | None:
    if module is None:
        return None
    check_squeeze_excite(name, module)
    return FoldedSqueezeExcite(
        w1=_float(module.reduce.weight).flatten(1),
        b1=_float(module.reduce.bias),
        w2=_float(module.expand.weight).flatten(1),
        b2=_float(module.expand.bias),
        activation=module.activation_name,
        gate=module.gate_name,
    )


def _fold_block(name: str, module: nn.Module) -> FoldedBlock:
    reader = _BLOCKS.get(type(module))
    if reader is None:
        allowed = ", ".join(cls.__name__ for cls in _BLOCKS)
        raise TypeError(f"model.{name} must be one of {allowed}, got {type(module).__name__}")
    return reader(name, module)


def _fold_mbconv(name: str, module: MBConv | DepthwiseSeparable) -> FoldedBlock:
    expand = getattr(module, "expand", None)
    return FoldedBlock(
        name=name,
        expand=None if expand is None else _fold_conv(f"{name}.expand", expand),
        depthwise=_fold_conv(f"{name}.depthwise", module.depthwise, depthwise=True),
        squeeze_excite=_fold_squeeze_excite(f"{name}.squeeze_excite", module.squeeze_excite),
        project=_fold_conv(f"{name}.project", module.project),
        residual=module.has_skip,
    )


def _fold_fused(name: str, module: FusedMBConv) -> FoldedFusedBlock:
    return FoldedFusedBlock(
        name=name,
        expand=_fold_conv(f"{name}.expand", module.expand),
        project=_fold_conv(f"{name}.project", module.project),
        residual=module.has_skip,
    )


def _fold_conv_block(name: str, module: ConvBlock) -> FoldedConvBlock:
    return FoldedConvBlock(name, _fold_conv(f"{name}.conv", module.conv), module.has_skip)


# Exact classes: a subclass may compute something else.
_BLOCKS: dict[type, Callable[[str, nn.Module], FoldedBlock | FoldedFusedBlock | FoldedConvBlock]] = {
    MBConv: _fold_mbconv,
    DepthwiseSeparable: _fold_mbconv,
    FusedMBConv: _fold_fused,
    ConvBlock: _fold_conv_block,
}


def _fold_linear(name: str, module: nn.Module) -> FoldedLinear:
    check_type(name, module, nn.Linear)
    bias = torch.zeros(module.out_features) if module.bias is None else _float(module.bias)
    return FoldedLinear(name, _float(module.weight), bias.to(module.weight.device))
