"""Bytes of activations that a network reads and writes, by fusion plan: the time of a memory-bound network.

Three plans of the same arithmetic, weights aside, counting every tensor that a kernel reads or writes:

- "eager": PyTorch's own kernels one by one: convolution, batch norm, activation, mean, both layers of the
  squeeze-excite with their activations, product with the gate, addition of the residual, and the padded copy
  where TensorFlow's SAME padding is asymmetric;
- "three_kernels": expansion | depthwise + pool + squeeze-excite | projection with gate and residual;
- "expansion_fused": the expanded tensor never reaches memory; squeeze-excite is a kernel of its own.

Blocks with a k x k convolution in the place of expansion and depthwise (V2's) are one or two kernels in both
fused plans. Gates, pooled sums, the pooled head and the logits are float32 in the fused plans, as in the
inference engine, and of the network's dtype in eager PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from effnet_fast.models.config import BlockConfig, EfficientNetConfig
from effnet_fast.models.counts import Layer, layers
from effnet_fast.nn.padding import conv_padding
from effnet_fast.ops.geometry import pool_tiles

__all__ = ["PLANS", "activation_bytes"]

PLANS = ("eager", "three_kernels", "expansion_fused")

_SINGLE = torch.float32.itemsize


@dataclass(frozen=True)
class _Block:
    """A block's convolutions in order, without those of its squeeze-excite."""

    convs: tuple[Layer, ...]
    squeeze: int | None
    residual: bool

    @property
    def y(self) -> int:
        return _out(self.convs[-1])


def activation_bytes(
    config: EfficientNetConfig, resolution: int, *, dtype: torch.dtype = torch.float16
) -> dict[str, int]:
    """{plan: bytes} of one image with sides of `resolution` pixels, images and activations in `dtype`.

    Raises: TypeError for a dtype that is no floating point one.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating point torch.dtype, got {dtype!r}")
    stem, *inner, head, classifier = layers(config, resolution)
    blocks = list(_blocks(config.blocks(), inner))
    size = dtype.itemsize
    ends = (_in(stem) + _out(stem) + _in(head)) * size + (2 * _in(classifier) + _out(classifier)) * _SINGLE
    return {
        "eager": _eager(config.padding, stem, blocks, head, classifier) * size,
        "three_kernels": ends + sum(_three_kernels(block, size) for block in blocks),
        "expansion_fused": ends + sum(_expansion_fused(block, size) for block in blocks),
    }


def _blocks(blocks: Iterator[BlockConfig], inner: Sequence[Layer]) -> Iterator[_Block]:
    by_name = {name: tuple(group) for name, group in groupby(inner, key=_block_name)}
    for block in blocks:
        convs = tuple(layer for layer in by_name[block.name] if layer.kind != "squeeze_excite")
        residual = block.stride == 1 and block.in_channels == block.out_channels
        yield _Block(convs, block.squeeze_channels, residual)


def _block_name(layer: Layer) -> str:
    return ".".join(layer.name.split(".")[:3])  # stages.<stage>.<index>


def _in(layer: Layer) -> int:
    height, width = layer.in_size
    return layer.in_channels * height * width


def _out(layer: Layer) -> int:
    height, width = layer.out_size
    return layer.out_channels * height * width


def _eager(padding: str, stem: Layer, blocks: Sequence[_Block], head: Layer, classifier: Layer) -> int:
    """Elements."""
    total = _conv_norm_act(stem, padding) + _conv_norm_act(head, padding)
    total += _out(head) + _in(classifier)  # mean over the map
    total += _in(classifier) + _out(classifier)
    for block in blocks:
        total += sum(_conv_norm_act(conv, padding) for conv in block.convs)
        if block.squeeze is not None:
            filtered, hidden = block.convs[-2], block.squeeze
            channels = filtered.out_channels
            total += _out(filtered) + channels  # mean
            total += channels + hidden + 2 * hidden + hidden + channels  # reduce, activation, expand
            total += 2 * channels  # gate
            total += 2 * _out(filtered) + channels  # product
        if block.residual:
            total += 3 * block.y
    return total


def _conv_norm_act(conv: Layer, padding: str) -> int:
    """Convolution, batch norm and, except after a projection, an activation; elements."""
    read = _in(conv)
    total = 0
    top, left, bottom, right = conv_padding(padding, conv.in_size, conv.kernel_size, conv.stride)
    if (top, left) != (bottom, right):
        height, width = conv.in_size
        padded = conv.in_channels * (height + top + bottom) * (width + left + right)
        total += read + padded  # a copy first
        read = padded
    passes = 2 if conv.kind == "project" else 4
    return total + read + _out(conv) + passes * _out(conv)


def _three_kernels(block: _Block, size: int) -> int:
    total = sum((_in(conv) + _out(conv)) * size for conv in block.convs)
    total += block.y * size if block.residual else 0
    if block.squeeze is not None:
        total += 2 * block.convs[-2].out_channels * _SINGLE  # the gates, written and read
    return total


def _expansion_fused(block: _Block, size: int) -> int:
    if block.convs[0].kind != "expand":
        return _three_kernels(block, size)
    expand, depthwise, _ = block.convs
    total = _three_kernels(block, size) - 2 * _out(expand) * size
    if block.squeeze is not None:
        # The sums of each tile, written and read, and then the gates, which are counted already.
        total += 2 * depthwise.out_channels * pool_tiles(*depthwise.out_size) * _SINGLE
    return total
