"""Blocks of the first convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from effnet_fast.triton_kernels.device import Device

from .blocks import covering, unique


@dataclass(frozen=True)
class Problem:
    """One first convolution: `images` of `lines` x `pixels` outputs of `products` = k * k * C each."""

    operator: ClassVar[str] = "stem_conv"

    images: int
    lines: int
    pixels: int
    products: int
    out_channels: int
    itemsize: int

    @property
    def kind(self) -> tuple:
        return (self.itemsize,)

    @property
    def size(self) -> tuple[int, ...]:
        return (self.images, self.lines, self.pixels, self.products, self.out_channels)


@dataclass(frozen=True)
class Config:
    """A block computes `lines` x `pixels` outputs of `columns` channels, `depth` products at a time."""

    lines: int
    pixels: int
    columns: int
    depth: int
    warps: int
    stages: int


def heuristic(problem: Problem, device: Device) -> Config:
    """All output channels at once, for gathering taps is most of the work; 27 of them are padded to 32."""
    columns = covering(problem.out_channels, (32, 64))
    lines = 8 if problem.itemsize == 2 else 4

    # One step has nothing to overlap with, and what is gathered passes through registers anyway.
    return Config(lines, 16, columns, depth=32, warps=4, stages=1)


def candidates(problem: Problem, device: Device) -> list[Config]:
    """Tiles of 64 to 256 pixels by 32 to 128 channels, with 4 or 8 warps."""
    first = heuristic(problem, device)
    found = [first]
    for lines, pixels in ((4, 16), (8, 16), (4, 32), (8, 32)):
        for columns in (32, 64, 128):
            found += [
                replace(first, lines=lines, pixels=pixels, columns=columns, warps=warps) for warps in (4, 8)
            ]
    return [c for c in unique(found) if c.lines * c.pixels * c.columns * 4 <= device.shared_bytes]
