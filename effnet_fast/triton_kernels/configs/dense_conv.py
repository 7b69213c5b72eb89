"""Blocks of the k x k convolution over all channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from effnet_fast.triton_kernels.device import Device

from .blocks import (
    affordable_stages,
    ceil_div,
    covering,
    neighbours,
    occupying,
    staged_bytes,
    unique,
    warps_for,
    width,
)


@dataclass(frozen=True)
class Problem:
    """One convolution: `images` of `rows` output pixels, `taps` = k * k products for each input channel."""

    operator: ClassVar[str] = "dense_conv"

    images: int
    rows: int
    taps: int
    in_channels: int
    out_channels: int
    itemsize: int
    residual: bool

    @property
    def kind(self) -> tuple:
        return (self.itemsize, self.residual)

    @property
    def size(self) -> tuple[int, ...]:
        return (self.images, self.rows, self.taps, self.in_channels, self.out_channels)


@dataclass(frozen=True)
class Config:
    """A block computes `rows` x `columns` outputs, `depth` input channels of one tap at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


def heuristic(problem: Problem, device: Device) -> Config:
    """Large blocks, for with k * k products an input this operator computes more than it reads."""
    half = problem.itemsize == 2
    columns = width(problem.out_channels, (32, 64, 128) if half else (32, 64), 1.35)
    rows = 128 if half and problem.rows > 64 else 64

    def programs(rows: int, columns: int) -> int:
        return problem.images * ceil_div(problem.rows, rows) * ceil_div(problem.out_channels, columns)

    rows, columns = occupying(programs, [(rows, columns), (64, min(columns, 64)), (16, 32)], device)
    # A step is one tap's channels, so that depth beyond them is products of zeros.
    depth = covering(problem.in_channels, (16, 32, 64) if half else (16, 32))
    stages = affordable_stages(rows, columns, depth, 3, problem.itemsize, device)
    return Config(rows, columns, depth, warps_for(rows, columns, problem.itemsize), stages)


def candidates(problem: Problem, device: Device) -> list[Config]:
    """Around the heuristic: half and twice each block size, either number of warps, other pipelines."""
    first = heuristic(problem, device)
    found = [first]
    for rows, columns in neighbours(first.rows, first.columns):
        found += [replace(first, rows=rows, columns=columns, warps=warps) for warps in (4, 8)]
    found += [replace(first, stages=stages) for stages in (2, 4)]
    found += [replace(first, depth=depth) for depth in (16, 32, 64)]
    return [
        c
        for c in unique(found)
        if staged_bytes(c.rows, c.columns, c.depth, c.stages, problem.itemsize) <= device.shared_bytes
    ]
