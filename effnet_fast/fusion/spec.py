"""What a block of somebody's model computes, as references to its own modules: nothing is copied here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from effnet_fast.nn.padding import same_padding

__all__ = ["Block", "Conv", "SqueezeExcite", "Unsupported"]

#: (top, left, bottom, right), or "same": TensorFlow's, which depends on the size of the input.
Padding = tuple[int, int, int, int] | str


class Unsupported(Exception):
    """A module of a known class that our operators do not compute; the message says why, in one clause."""


@dataclass(frozen=True, eq=False)
class Conv:
    """activation(scale * norm(conv(x))).

    Attributes:
        conv: with square odd kernel, one stride and no dilation; dense (groups 1) or depthwise.
        norm: batch norm with running statistics, None for none.
        activation: silu, relu, relu6, hardswish or identity.
        padding: (top, left, bottom, right) or "same".
        scale: a module whose `gamma` [Cout] multiplies the output (layer scale); None for none. Only where
            the activation is identity.
    """

    conv: nn.Conv2d
    norm: nn.Module | None
    activation: str
    padding: Padding
    scale: nn.Module | None = None

    @property
    def in_channels(self) -> int:
        return self.conv.in_channels

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels

    @property
    def kernel(self) -> int:
        return self.conv.kernel_size[0]

    @property
    def stride(self) -> int:
        return self.conv.stride[0]

    @property
    def is_depthwise(self) -> bool:
        """One filter a channel. (With one channel, dense and depthwise are the same.)"""
        return self.conv.groups > 1

    @property
    def is_pointwise(self) -> bool:
        return (
            not self.is_depthwise
            and self.kernel == self.stride == 1
            and self.padding in ("same", (0, 0, 0, 0))
        )

    def padding_for(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Padding (top, left, bottom, right) of an input of this height and width."""
        if isinstance(self.padding, tuple):
            return self.padding
        (top, bottom), (left, right) = (
            same_padding(size, self.kernel, self.stride) for size in (height, width)
        )
        return top, left, bottom, right

    def tensors(self) -> Iterator[Tensor | None]:
        """Everything that its result depends on, as it is now."""
        yield self.conv.weight
        yield self.conv.bias
        if self.norm is not None:
            norm = self.norm
            yield from (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        if self.scale is not None:
            yield self.scale.gamma


@dataclass(frozen=True, eq=False)
class SqueezeExcite:
    """x * gate(expand(activation(reduce(mean of x over H and W)))), both layers 1x1 convolutions.

    Attributes:
        reduce, expand: nn.Conv2d, with or without bias.
        activation: silu, relu, relu6, hardswish or identity.
        gate: sigmoid or hardsigmoid.
    """

    reduce: nn.Conv2d
    expand: nn.Conv2d
    activation: str
    gate: str

    @property
    def in_channels(self) -> int:
        return self.reduce.in_channels

    @property
    def out_channels(self) -> int:
        return self.expand.out_channels

    def tensors(self) -> Iterator[Tensor | None]:
        """Everything that its result depends on, as it is now."""
        yield from (self.reduce.weight, self.reduce.bias, self.expand.weight, self.expand.bias)


@dataclass(frozen=True, eq=False)
class Block:
    """`parts` one after the other; then, if `residual`, plus the block's input."""

    parts: tuple[Conv | SqueezeExcite, ...]
    residual: bool = False

    def tensors(self) -> Iterator[Tensor]:
        """Everything that its result depends on, as it is now."""
        for part in self.parts:
            yield from (tensor for tensor in part.tensors() if tensor is not None)

    @property
    def in_channels(self) -> int:
        return self.parts[0].in_channels

    @property
    def out_channels(self) -> int:
        return self.parts[-1].out_channels

    @property
    def convs(self) -> tuple[Conv, ...]:
        return tuple(part for part in self.parts if isinstance(part, Conv))
