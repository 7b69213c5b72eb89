"""Blocks of the head: 1x1 convolution, activation, mean over pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from effnet_fast.triton_kernels.device import Device

from .blocks import affordable_stages, ceil_div, covering, occupying, staged_bytes, unique


@dataclass(frozen=True)
class Problem:
    """One head: `images` of `pixels` pixels."""

    operator: ClassVar[str] = "head_pool"

    images: int
    pixels: int
    in_channels: int
    out_channels: int
    itemsize: int

    @property
    def kind(self) -> tuple:
        return (self.itemsize,)

    @property
    def size(self) -> tuple[int, ...]:
        return (self.images, self.pixels, self.in_channels, self.out_channels)


@dataclass(frozen=True)
class Config:
    """A block computes `columns` means of each of `images` images, `pixels` pixels of each at a time.

    Several images at a time read the weights once; `images` * `pixels` rows go through one matrix product.
    """

    images: int
    pixels: int
    columns: int
    depth: int
    warps: int
    stages: int


def heuristic(problem: Problem, device: Device) -> Config:
    """As many images as fill the rows of a product; fewer, and fewer columns, where there are few images."""
    half = problem.itemsize == 2
    rows, columns = (128, 64) if half else (64, 64)
    pixels = min(rows, covering(problem.pixels, (16, 32, 64, 128)))
    if pixels == 128 and ceil_div(problem.pixels, 64) * 64 * 1.2 < ceil_div(problem.pixels, 128) * 128:
        # 144 pixels, say: three times 64, not twice 128.
        rows = pixels = 64

    def programs(rows: int, columns: int) -> int:
        return ceil_div(problem.images, rows // pixels) * ceil_div(problem.out_channels, columns)

    rows, columns = occupying(programs, [(rows, columns), (pixels, 32)], device)
    # Sums and their reduction need registers too: 64 accumulators a thread would take all 255.
    warps = 8 if rows * columns > 4096 else 4
    depth = 64 if half else 32
    stages = affordable_stages(rows, columns, depth, 3, problem.itemsize, device)
    return Config(rows // pixels, pixels, columns, depth, warps, stages)


def candidates(problem: Problem, device: Device) -> list[Config]:
    """Blocks of 64 to 256 rows by 32 to 128 columns, 16 or 32 accumulators a thread, other pipelines."""
    first = heuristic(problem, device)
    found = [first]
    for rows in (64, 128, 256):
        for columns in (32, 64, 128):
            pixels = min(rows, first.pixels)
            for warps in (4, 8, 16):
                if 512 * warps <= rows * columns <= 1024 * warps:
                    found.append(
                        replace(first, images=rows // pixels, pixels=pixels, columns=columns, warps=warps)
                    )
    found += [replace(first, stages=stages) for stages in (2, 4)]
    return [
        c
        for c in unique(found)
        if staged_bytes(c.images * c.pixels, c.columns, c.depth, c.stages, problem.itemsize)
        <= device.shared_bytes
    ]
