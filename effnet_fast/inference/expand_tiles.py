"""How the CUDA kernel `expand_depthwise` divides a map: its tiles, and what a tile makes it compute besides.

A block of threads makes tiles of the output of one image. It keeps the input under a tile, halo included, in
shared memory, and walks through the expanded channels a chunk at a time: a matrix product writes the chunk of
the expanded tile to shared memory, the depthwise convolution reads it there. What that costs over the least
possible work is the halo, whole products of 16 positions, whole items of 8 columns and whole chunks: all
counted here, exactly.

This is csrc/cuda/expand_depthwise_tiles.h in Python, for predictions on machines without the kernel: whoever
changes one changes the other, and a test compiles that header and compares.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from effnet_fast.inference.layers import Layer
from effnet_fast.ops.geometry import pool_tiles

__all__ = [
    "VARIANTS",
    "Tiling",
    "Variant",
    "choose_tiling",
    "filter_instructions",
    "position_instructions",
    "tile",
]

# Channels of the input whose weights a thread keeps in registers.
_MOST_CHANNELS = 128

# What CUDA takes of the shared memory of every block.
_RESERVED = 1024

# mma.sync makes 62 % of the 2048 multiply-adds that the tensor cores of a multiprocessor can in a clock.
_MMA_CYCLES = 2048 / (0.62 * 2048)


@dataclass(frozen=True)
class Variant:
    """One compiled kernel: its convolution, `chunk` channels at a time, and the `rows` of a band."""

    kernel: int
    stride: int
    chunk: int
    rows: int

    @property
    def warps(self) -> int:
        return 6 if self.chunk == 48 else 4

    @property
    def most_resident(self) -> int:
        """Blocks of a multiprocessor, by registers."""
        return 2 if self.chunk == 48 or (self.kernel == 5 and (self.rows > 4 or self.stride == 2)) else 3

    @property
    def for_any_activation(self) -> bool:
        return self.rows == 4 and (self.kernel == 5 or self.chunk == 48)


VARIANTS = tuple(
    Variant(*numbers)
    for numbers in (
        (3, 1, 48, 7), (3, 1, 48, 4), (3, 1, 32, 7), (3, 1, 32, 4), (3, 2, 48, 7),
        (3, 2, 48, 4), (3, 2, 32, 4), (5, 1, 16, 7), (5, 1, 16, 4), (5, 2, 32, 4),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Tiling:
    """A kernel with its tiles, and what they make of a call.

    Attributes:
        variant: the kernel.
        tile_rows, tile_columns: of the output.
        tiles: of an image.
        blocks: of an image; with more tiles than rows of sums a block takes several.
        chunks, block_chunks: of the expanded channels: in all, and of a block.
        positions: pixels of the expanded map that are computed, per channel, in all tiles of an image.
        outputs: pixels of the output that are computed, per channel, in all tiles of an image.
        staged: pixels of the input that are copied to shared memory, in all tiles of an image.
        shared_bytes: of a block.
        resident: blocks that share a multiprocessor.
        cycles: of a multiprocessor for all images, by which tilings are compared.
        expansion_balance, filter_balance: share of the warps' turns in which they have work, in each phase.
    """

    variant: Variant
    tile_rows: int
    tile_columns: int
    tiles: int
    blocks: int
    chunks: int
    block_chunks: int
    positions: int
    outputs: int
    staged: int
    shared_bytes: int
    resident: int
    cycles: float
    expansion_balance: float
    filter_balance: float


def tile(
    layer: Layer, images: int, multiprocessors: int, capacity: int, variant: Variant, bands: int, columns: int
) -> Tiling | None:
    """`layer` in tiles of `columns` columns and up to 2 x `bands` x variant.rows rows; None: they do not fit.

    Arguments as in `choose_tiling`.
    """
    k, stride = variant.kernel, variant.stride
    channels, height, width = layer.x.shape
    expanded, out_height, out_width = layer.y.shape
    top, left, _, right = layer.padding
    covered = 2 * bands * variant.rows
    # Rows are shared evenly: a band whose last rows are idle costs no expansion.
    tiles_y, tiles_x = _up(out_height, covered), _up(out_width, columns)
    tile_rows = _up(out_height, tiles_y)
    groups = _up(columns, 8)
    in_rows, in_columns = (tile_rows - 1) * stride + k, (columns - 1) * stride + k
    read = 8 * groups - 1
    if stride == 2:  # even columns first, then odd ones
        odd = _up(in_columns, 2)
        pitch, last = 2 * odd, max(odd + read + (k - 3) // 2, read + (k - 1) // 2)
    else:
        # In a tile as wide as the image, what pads a line on the right is what pads the next one on the left.
        whole = tiles_x == 1 and left < k and right < k
        pitch, last = (width + max(left, right) if whole else in_columns), read + k - 1
    positions = 16 * _up(in_rows * pitch, 16)
    all_positions = max(positions, ((covered - 1) * stride + k - 1) * pitch + last + 1)
    # Pixels begin at odd multiples of 16 bytes, so that eight of them are in eight different banks.
    depth = channels + 8
    input_pitch = depth if depth // 8 % 2 else depth + 8
    places = groups * bands
    pool = max(places, 64 * variant.warps // variant.chunk)
    expanded_bytes = 2 * all_positions * (variant.chunk + 8)
    shared_bytes = 2 * positions * input_pitch + expanded_bytes + 4 * pool * variant.chunk
    resident = min(variant.most_resident, capacity // (shared_bytes + _RESERVED))
    if resident == 0 or places >= 1024:
        return None

    tiles = tiles_y * tiles_x
    blocks = min(tiles, pool_tiles(out_height, out_width)) if layer.sums is not None else tiles
    chunks = _up(expanded, variant.chunk)
    whole_blocks = max(1, images * blocks)
    # A small batch: parts of the channels, until every multiprocessor has two blocks.
    block_chunks = _up(chunks, min(chunks, _up(2 * multiprocessors, whole_blocks)))

    # Products above and below the image are skipped.
    computed = []
    for first in range(-top, tiles_y * tile_rows * stride - top, tile_rows * stride):
        above = min(max(-first, 0), in_rows)
        below = max(min(height - first, in_rows), above)
        computed.append(_up(below * pitch, 16) - above * pitch // 16)
    items = places * (variant.chunk // 16)
    end = (tiles_y - 1) * tile_rows * stride - top + in_rows
    lines = tiles_y * in_rows - top - max(end - height, 0)
    cycles = _cycles(
        variant, channels, items, resident,
        products=lines * pitch / 16 / tiles_y,
        loads=positions * (channels // 8 + 1), tiles=_up(tiles, blocks), chunks=block_chunks,
    ) * _up(whole_blocks * _up(chunks, block_chunks), multiprocessors)  # fmt: skip
    turns = sum(_up(count, variant.warps) for count in computed)
    return Tiling(
        variant=variant,
        tile_rows=tile_rows,
        tile_columns=columns,
        tiles=tiles,
        blocks=blocks,
        chunks=chunks,
        block_chunks=block_chunks,
        positions=16 * sum(computed) * tiles_x,
        outputs=tiles * covered * 8 * groups,
        staged=tiles * positions,
        shared_bytes=shared_bytes,
        resident=resident,
        cycles=cycles,
        expansion_balance=sum(computed) / (turns * variant.warps) if turns else 1.0,
        filter_balance=items / (_up(items, variant.warps) * variant.warps),
    )


def choose_tiling(layer: Layer, images: int, multiprocessors: int, capacity: int) -> Tiling | None:
    """The kernel and the tiles that `layer` gets; None where it is composed of two kernels.

    Args:
        layer: an `expand_depthwise` or `expand_depthwise_pool` of a 16-bit map.
        images: in the call.
        multiprocessors: of the GPU, with `capacity` bytes of shared memory each.
    """
    channels, expanded = layer.x.shape[0], layer.y.shape[0]
    silu = layer.activation == "silu"
    if (
        channels % 8
        or expanded % 8
        or channels > _MOST_CHANNELS
        or silu != (layer.expand_activation == "silu")
    ):
        return None
    # Blocks that repeat differ in names alone, and have the same tiles.
    values = {"x": layer.x, "y": layer.y, "sums": layer.sums}
    nameless = {key: value and replace(value, name="") for key, value in values.items()}
    return _choose(replace(layer, name="", block="", **nameless), images, multiprocessors, capacity)


@functools.lru_cache(maxsize=1024)
def _choose(layer: Layer, images: int, multiprocessors: int, capacity: int) -> Tiling | None:
    def order(tiling: Tiling) -> tuple[bool, float]:
        # Up to 56 channels a block alone on its multiprocessor comes last: nothing hides its barriers.
        return layer.x.shape[0] <= 56 and tiling.resident < 2, tiling.cycles

    tilings = _tilings(layer, images, multiprocessors, capacity, layer.activation == "silu")
    return min(tilings, key=order, default=None)


def _tilings(layer: Layer, images: int, multiprocessors: int, capacity: int, silu: bool) -> Iterator[Tiling]:
    _, out_height, out_width = layer.y.shape
    for variant in VARIANTS:
        if (variant.kernel, variant.stride) != (layer.kernel, layer.stride):
            continue
        if not silu and not variant.for_any_activation:
            continue
        for bands in range(1, 5):
            if bands > 1 and (bands - 1) * 2 * variant.rows >= out_height:
                break
            # Equal strips of 7 to 40 columns; narrower ones are mostly halo, wider ones do not fit twice.
            for strips in range(_up(out_width, 40), _up(out_width, 7) + 1):
                columns = _up(out_width, strips)
                tiling = tile(layer, images, multiprocessors, capacity, variant, bands, columns)
                if tiling is not None:
                    yield tiling


def position_instructions(variant: Variant, channels: int) -> float:
    """Instructions of a warp for 16 positions of a chunk: the loop in the machine code for sm_90."""
    tiles, steps = variant.chunk // 8, channels // 16 + 1
    return 10.5 * tiles + (tiles + 1) * steps + 10


def filter_instructions(variant: Variant) -> float:
    """Instructions of a warp for an item of 16 channels, 8 columns and two bands: likewise."""
    k, outputs = variant.kernel, 8 * variant.rows
    columns, lines = k // 2 + 1, (variant.rows - 1) * variant.stride + k
    return 2 * variant.rows * k * columns + 2 * lines * columns + 5.2 * outputs + 60


def _cycles(
    variant: Variant,
    channels: int,
    items: int,
    resident: int,
    *,
    products: float,
    loads: int,
    tiles: int,
    chunks: int,
) -> float:
    """Clock cycles of a multiprocessor for a block: rates and efficiencies as in the header."""
    k, rows = variant.kernel, variant.rows
    chunk_tiles, steps = variant.chunk // 8, channels // 16 + 1
    halves = 0.5 if channels % 16 == 0 else 0.0
    expand = (
        position_instructions(variant, channels) / 4,
        8 * chunk_tiles,
        _MMA_CYCLES * chunk_tiles * (steps - halves),
        4 * steps + 2 * chunk_tiles,
    )
    lines = (rows - 1) * variant.stride + k
    filtering = (filter_instructions(variant) / 4, 16 * rows, _MMA_CYCLES * rows * k * k, 4 * lines * k)
    expand, filtering = [products * part for part in expand], [items * part for part in filtering]
    both = [a + b for a, b in zip(expand, filtering, strict=True)]
    # Phases of blocks that share a multiprocessor overlap, those of a single block do not.
    together, apart = _longest(both), _longest(expand) + _longest(filtering)
    chunk = together + (apart - together) / resident
    load = 15 * loads / 32 / 4 / 0.75
    return tiles * (load + chunks * chunk) * (1 + 2 / (resident * variant.warps))


def _longest(parts: list[float]) -> float:
    return max(part / efficiency for part, efficiency in zip(parts, (0.75, 0.85, 0.7, 0.85), strict=True))


def _up(value: int, unit: int) -> int:
    """How many `unit`s hold `value`."""
    return -(-value // unit)
