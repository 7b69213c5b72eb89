"""Sizes of what a block reads and writes."""

from __future__ import annotations

from effnet_fast.fusion.spec import Block, Conv, Unsupported
from effnet_fast.ops.geometry import conv_output_size

__all__ = ["SMALL", "block_output_size", "check", "fits", "output_size"]

#: Under this height and width an input may be smaller than a kernel.
SMALL = 16


def output_size(part: Conv, height: int, width: int) -> tuple[int, int]:
    """Height and width of the output of a convolution."""
    top, left, bottom, right = part.padding_for(height, width)
    return (
        conv_output_size(height, part.kernel, part.stride, top, bottom),
        conv_output_size(width, part.kernel, part.stride, left, right),
    )


def block_output_size(block: Block, height: int, width: int) -> tuple[int, int]:
    """Height and width of the output of a block."""
    for conv in block.convs:
        height, width = output_size(conv, height, width)
    return height, width


def fits(block: Block, channels: int, height: int, width: int) -> bool:
    """Whether `block` takes inputs of this shape."""
    if channels != block.in_channels:
        return False
    if min(height, width) < SMALL:
        for conv in block.convs:
            height, width = output_size(conv, height, width)
            if min(height, width) < 1:
                return False
    return True


def check(block: Block) -> None:
    """Raise Unsupported where the parts do not fit each other, or a residual its sum."""
    channels = None
    for part in block.parts:
        if channels not in (None, part.in_channels):
            raise Unsupported(f"{channels} channels are given to a layer of {part.in_channels}")
        channels = part.out_channels
    if not block.residual:
        return
    for conv in block.convs:
        # Any size will do: one pixel less, and all are.
        if output_size(conv, SMALL, SMALL) != (SMALL, SMALL):
            raise Unsupported("a residual around a convolution that changes the size")
    if block.in_channels != block.out_channels:
        raise Unsupported("a residual with another number of channels")
