"""Blocks of the depthwise convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from effnet_fast.triton_kernels.device import Device

from .blocks import ceil_div, unique, width

#: Edge of the square of outputs that one program computes: the tile of ``sums`` in the operators' contract.
POOL_TILE = 16

#: What accumulators and weights may take of a thread's 255 registers: 100 compile to 190..230 without spills.
_HELD = 104


@dataclass(frozen=True)
class Problem:
    """One depthwise convolution; `pool` where the sums of its outputs are taken too."""

    operator: ClassVar[str] = "depthwise_conv"

    images: int
    rows: int
    columns: int
    channels: int
    kernel: int
    stride: int
    itemsize: int
    pool: bool

    @property
    def kind(self) -> tuple:
        return (self.kernel, self.stride, self.itemsize, self.pool)

    @property
    def size(self) -> tuple[int, ...]:
        return (self.images, self.rows, self.columns, self.channels)

    def programs(self, channels: int) -> int:
        """How many programs take `channels` channels of a tile."""
        tiles = ceil_div(self.rows, POOL_TILE) * ceil_div(self.columns, POOL_TILE)
        return self.images * tiles * ceil_div(self.channels, channels)


@dataclass(frozen=True)
class Config:
    """A program walks over a 16 x 16 tile of outputs, `rows` x `columns` pixels x `channels` at a time.

    Attributes:
        window: neighbouring pixels of a row that one thread computes.
        taps: columns of the kernel whose weights are in registers at a time: one, or all.
    """

    rows: int
    columns: int
    window: int
    channels: int
    taps: int
    warps: int

    @property
    def vector(self) -> int:
        """Channels of a pixel in one thread."""
        return self.columns // self.window * self.channels // (32 * self.warps)

    def held(self, kernel: int) -> int:
        """Accumulators and weights of a thread."""
        return self.vector * (self.rows * self.window + kernel * self.taps)


def heuristic(problem: Problem, device: Device) -> Config:
    """As many outputs a thread as its registers hold, in blocks of eight columns: 7 and 14 waste little.

    3x3 without stride keeps all nine weights and shares a pixel between the columns of a window too: it is
    the one case that memory feeds faster than the instructions of the other form follow.
    """
    half = problem.itemsize == 2
    channels = width(problem.channels, (32, 64), 1.2)
    # Narrow blocks of channels come with wide maps.
    columns = 512 // channels
    whole = problem.kernel <= 3 and problem.stride == 1
    config = Config(
        rows=4 if whole and not half else 8,
        columns=columns,
        window=2 if whole else 1,
        channels=channels,
        taps=problem.kernel if whole else 1,
        # Eight channels of 16 bits are 16 bytes, as are four of 32; larger kernels have more weights.
        warps=2 if whole or (half and problem.kernel <= 5) else 4,
    )
    if device.capability >= 100 and (problem.kernel, problem.stride) == (5, 2):
        # At eight rows ptxas 12.9 spills 8 bytes of a thread for sm_120, to end at 168 registers.
        config = replace(config, rows=4)
    if problem.programs(channels) < 2 * device.multiprocessors:
        # Few programs: narrow ones, of more threads with less to do each.
        config = replace(config, rows=4 if whole else 8, columns=16, channels=32, warps=4)
    while config.held(problem.kernel) > _HELD and config.rows > 1:
        config = replace(config, rows=config.rows // 2)
    return config


def candidates(problem: Problem, device: Device) -> list[Config]:
    """Both forms, other heights, widths and numbers of threads, four or eight channels in each."""
    forms = [(1, 1)]
    if problem.stride == 1 and problem.kernel > 1:
        forms.append((2, problem.kernel))
    tried = [
        Config(rows, columns, window, channels, taps, warps)
        for window, taps in forms
        for rows in (4, 8, 16)
        for columns, channels in ((8, 64), (16, 32), (16, 64))
        for warps in (2, 4)
    ]
    fitting = [c for c in tried if c.vector in (4, 8) and c.held(problem.kernel) <= _HELD]
    return unique([heuristic(problem, device), *fitting])
