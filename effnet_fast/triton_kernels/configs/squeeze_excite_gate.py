"""Blocks of the squeeze-excite gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from effnet_fast.triton_kernels.device import Device

from .blocks import unique

#: Partial sums a thread may have: its registers also hold as many loaded values.
_PARTIALS = 64


@dataclass(frozen=True)
class Problem:
    """One gate: `images` with `tiles` sums each of `channels` channels, squeezed to `squeeze`."""

    operator: ClassVar[str] = "squeeze_excite_gate"

    images: int
    tiles: int
    channels: int
    squeeze: int

    @property
    def kind(self) -> tuple:
        # Configurations for one image waste nothing on rows that are not there.
        return (self.images == 1,)

    @property
    def size(self) -> tuple[int, ...]:
        return (self.images, self.tiles, self.channels, self.squeeze)


@dataclass(frozen=True)
class Config:
    """Blocks of the three kernels, each of four warps.

    Attributes:
        images: rows of both products: that many share one read of the weights.
        tiles: sums of an image that the first product adds by itself; of more, a kernel of their own is made.
        add_tiles, add_channels: block of that kernel.
        squeeze_columns, squeeze_depth: of the first product, from channels to squeezed channels.
        excite_columns, excite_depth: of the second, and back.
    """

    images: int
    tiles: int
    add_tiles: int
    add_channels: int
    squeeze_columns: int
    squeeze_depth: int
    excite_columns: int
    excite_depth: int

    @property
    def partials(self) -> int:
        """Partial sums of a thread, in the larger of both products."""
        blocks = (self.squeeze_columns * self.squeeze_depth, self.excite_columns * self.excite_depth)
        return max(-(-self.images * block // 128) for block in blocks)


def heuristic(problem: Problem, device: Device) -> Config:
    """Eight images share the weights; one alone takes them in a few long steps, each of which waits once.

    Adding a few tiles on the way saves one image a launch, and costs a batch a read per block of columns.
    """
    if problem.images == 1:
        return Config(1, 4, 16, 64, squeeze_columns=4, squeeze_depth=512, excite_columns=16, excite_depth=64)
    return Config(8, 1, 16, 64, squeeze_columns=4, squeeze_depth=256, excite_columns=16, excite_depth=32)


def candidates(problem: Problem, device: Device) -> list[Config]:
    """Around the heuristic: half and twice each block, more or fewer images."""
    first = heuristic(problem, device)
    tried = [
        replace(first, images=images)
        for images in (2, 4, 16)
        if first.images > 1 and images < 2 * problem.images
    ]
    for name in ("squeeze_columns", "squeeze_depth", "excite_columns", "excite_depth"):
        tried += [replace(first, **{name: getattr(first, name) * times // 2}) for times in (1, 4)]
    tried += [replace(first, add_tiles=tiles) for tiles in (8, 32)]
    tried += [replace(first, add_channels=channels) for channels in (32, 128)]
    tried += [replace(first, tiles=tiles) for tiles in (1, 4, 9)]
    return unique([first, *(config for config in tried if config.partials <= _PARTIALS)])
