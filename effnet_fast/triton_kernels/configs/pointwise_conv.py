"""Blocks of the 1x1 convolution."""

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
    """One 1x1 convolution: `images` of `rows` pixels (1 and all pixels where no gate tells images apart)."""

    operator: ClassVar[str] = "pointwise_conv"

    images: int
    rows: int
    in_channels: int
    out_channels: int
    itemsize: int
    gate: bool
    residual: bool

    @property
    def kind(self) -> tuple:
        return (self.itemsize, self.gate, self.residual)

    @property
    def size(self) -> tuple[int, ...]:
        return (self.images, self.rows, self.in_channels, self.out_channels)


@dataclass(frozen=True)
class Config:
    """`rows` x `columns` outputs at a time, `depth` input channels at a time, `sweep` times along a row.

    `sweep` may pass 1 only where `depth` covers all input channels: see the kernel.
    """

    rows: int
    columns: int
    depth: int
    sweep: int
    warps: int
    stages: int


def heuristic(problem: Problem, device: Device) -> Config:
    """Blocks that read the pixels once while they occupy the GPU, and smaller ones below that."""
    half = problem.itemsize == 2
    inputs, outputs = problem.in_channels, problem.out_channels
    # With a gate there are few outputs and many inputs, and nothing to sweep: only stage 0 has 32 inputs.
    whole_depth = covering(inputs, (32,) if problem.gate or not half else (16, 32, 64, 128))
    if inputs <= whole_depth:
        # Narrow blocks cost a sweep no second read of the pixels, and pad 96 and 144 channels less.
        columns, depth = width(outputs, (32, 64), 1.15), whole_depth
    elif outputs <= 128:
        # All outputs at once, however padded: the products are cheaper than a second read of the pixels.
        columns = covering(outputs, (32, 64, 128))
        depth = 32 if columns == 32 else 64
    else:
        columns, depth = width(outputs, (64, 128), 1.35), 64
    if not half:
        columns, depth = min(columns, 64), 32
    # 64 accumulators a thread: at half of them, 9 instructions an output instead of 7.
    rows = 256 if columns == 32 and not problem.gate else 128
    if not half or problem.rows <= 64:
        rows, columns = 64, min(columns, 64)

    def programs(rows: int, columns: int) -> int:
        return problem.images * ceil_div(problem.rows, rows) * ceil_div(outputs, columns)

    tiles = [(rows, columns), (64, 64), (16, 32)]
    if columns < 64 or rows == 64 or inputs <= depth:
        del tiles[1]
    rows, columns = occupying(programs, tiles, device)
    if rows == 16:
        # Each step waits for memory once, and a small block has room for longer steps.
        depth = 128 if half else 64
    config = Config(rows, columns, depth, 1, warps_for(rows, columns, problem.itemsize), stages=3)
    if inputs <= depth:
        config = _swept(problem, device, config)
    stages = affordable_stages(rows, columns, config.depth, config.stages, problem.itemsize, device)
    return replace(config, stages=stages)


def _swept(problem: Problem, device: Device, config: Config) -> Config:
    """`config` with as long a sweep as leaves four programs a multiprocessor, which is what fits on one."""
    row_programs = problem.images * ceil_div(problem.rows, config.rows)
    blocks = ceil_div(problem.out_channels, config.columns)
    groups = min(blocks, ceil_div(4 * device.multiprocessors, row_programs))
    # A gate comes with one block of columns, so nothing to prefetch. At depth 16 two stages spill on sm_120.
    stages = 1 if problem.gate else 3 if config.depth == 16 else 2
    return replace(config, sweep=ceil_div(blocks, groups), stages=stages)


def candidates(problem: Problem, device: Device) -> list[Config]:
    """Around the heuristic: half and twice each block size, either number of warps, other pipelines."""
    first = heuristic(problem, device)
    found = [first]
    for rows, columns in neighbours(first.rows, first.columns):
        for warps in (4, 8):
            config = replace(first, rows=rows, columns=columns, warps=warps)
            found.append(_swept(problem, device, config) if problem.in_channels <= config.depth else config)
    found += [replace(first, stages=stages) for stages in (1, 2, 3, 4)]
    found += [replace(first, depth=depth) for depth in (32, 64, 128) if first.sweep == 1]
    return [
        c
        for c in unique(found)
        if staged_bytes(c.rows, c.columns, c.depth, c.stages, problem.itemsize) <= device.shared_bytes
    ]
