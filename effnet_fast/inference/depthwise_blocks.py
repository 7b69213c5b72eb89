"""How the CUDA kernel `depthwise_conv_gate` divides a map among blocks, and how many kernels its gate takes.

Where the last block of an image can compute its gates, the squeeze-excite takes no kernel. Else it takes two,
and a third that adds up the sums first where there are many: an image has one for each tile of the blocks.

This is csrc/cuda/depthwise_conv_launch.h, depthwise_conv_gate_launch.h and squeeze_excite_gate_launch.h in
Python, for predictions on machines without the kernels: whoever changes one changes the other, and a test
compiles those headers and compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from effnet_fast.inference.layers import Layer
from effnet_fast.ops.geometry import POOL_TILE, pool_tiles

__all__ = ["Division", "divide", "gate_kernels", "squeeze_excite_kernels"]

# Of a thread and of a block of the fast kernel.
_COLUMNS, _MOST_GROUPS, _PIXEL_BYTES, _SHARED_BYTES = 4, 8, 128, 56 << 10

# Bytes of a squeeze-excite's weights, and loads in a row, up to which the last block of an image computes it.
_TAIL_BYTES, _TAIL_LOADS = 64 << 10, 20

# Squeezed channels of a block; tiles that are added up without a kernel, and where multiprocessors are idle.
_SQUEEZED, _FEW_TILES, _IDLE_TILES = 8, 4, 16


@dataclass(frozen=True)
class Division:
    """Of a call of the fast kernel: threads of a block, and tiles of an image, each with sums of its own."""

    threads: int
    tiles: int


def gate_kernels(layer: Layer, images: int, multiprocessors: int, storage: int) -> int:
    """Kernels behind the convolution of a `depthwise_conv_gate`; 0 where it needs none.

    `storage`: bytes of a value of its maps.
    """
    division = divide(layer, images, multiprocessors, storage)
    channels, height, width = layer.y.shape
    if division is None:
        return squeeze_excite_kernels(images, pool_tiles(height, width), layer.squeeze, multiprocessors)
    if 8 * channels * layer.squeeze <= _TAIL_BYTES:
        loads = _up(channels, division.threads) * (division.tiles + layer.squeeze)
        loads += _up(layer.squeeze, division.threads // 32) * _up(channels, 32)
        # Nothing hides the loads but other images at work, one a multiprocessor.
        if images >= multiprocessors or loads <= _TAIL_LOADS:
            return 0
    return squeeze_excite_kernels(images, division.tiles, layer.squeeze, multiprocessors)


def squeeze_excite_kernels(images: int, tiles: int, squeeze: int, multiprocessors: int) -> int:
    """Kernels of a `squeeze_excite_gate` on `tiles` sums an image: both layers, and one for many sums."""
    idle = images * _up(squeeze, _SQUEEZED) <= multiprocessors
    return 2 + (tiles > (_IDLE_TILES if idle else _FEW_TILES))


def divide(layer: Layer, images: int, multiprocessors: int, storage: int) -> Division | None:
    """What the fast kernel makes of a `depthwise_conv_gate`; None where the general kernel computes it."""
    channels, out_height, out_width = layer.y.shape
    width = layer.x.shape[2]
    k, stride, (top, left, bottom, right) = layer.kernel, layer.stride, layer.padding
    row = max(width + left + right, out_width) * channels
    made = k in (3, 5, 7) and stride in (1, 2) and channels % 8 == 0
    if not (made and top < k and bottom < k and row < 1 << 27 and out_height < 1 << 20):
        return None
    per_thread, sector = 4 if k == 3 else 2, 32 // storage

    def strips(groups: int) -> int:
        return _up(out_width, groups * _COLUMNS)

    # The groups of columns that stage the fewest columns of the input in all.
    groups = fewest = min(_up(out_width, _COLUMNS), POOL_TILE // _COLUMNS)
    for more in range(fewest, min(_up(out_width, _COLUMNS), _MOST_GROUPS) + 1):
        staged, before = (strips(g) * _staged_columns(layer, g) for g in (more, groups))
        if _shared_bytes(layer, more, storage) <= _SHARED_BYTES and staged < before:
            groups = more

    block, segments = _block_channels(channels, groups, per_thread, sector, _PIXEL_BYTES // storage), 1

    def blocks() -> int:
        return images * _up(channels, block) * strips(groups) * segments

    # A small batch is divided further, until every multiprocessor has two blocks.
    wanted = 2 * multiprocessors
    if blocks() < wanted:
        segments = min(_up(out_height, 4), _up(wanted, max(blocks(), 1)))
    if blocks() < wanted:
        groups = fewest
    while blocks() < wanted and block % 16 == 0 and block // 2 // per_thread * groups >= 32:
        block //= 2
    fewer = _up(block, sector) * sector - sector
    while fewer >= sector and blocks() < multiprocessors:
        if fewer // per_thread * groups >= 16 and _up(channels, fewer) > _up(channels, block):
            block = fewer
        fewer -= sector
    if blocks() < multiprocessors:
        apart = max(blocks() // segments, 1)
        most = min(_up(out_height, 2), 16 // strips(groups))
        segments = max(segments, min(most, _up(multiprocessors, apart)))
    segments = _up(out_height, _up(out_height, segments))
    return Division(_up(block // per_thread * groups, 32) * 32, strips(groups) * segments)


def _block_channels(channels: int, groups: int, per_thread: int, sector: int, most: int) -> int:
    """Of a block: all up to `most`, else as many of whole sectors as leave the fewest threads idle."""
    if channels <= most:
        return channels

    def threads(block: int) -> int:
        return _up(channels, block) * _up(block // per_thread * groups, 32)

    step = sector if channels % sector == 0 else 8
    return min(range(most, (most + 1) // 2 - 1, -step), key=threads)


def _staged_columns(layer: Layer, groups: int) -> int:
    return (groups * _COLUMNS - 1) * layer.stride + layer.kernel


def _shared_bytes(layer: Layer, groups: int, storage: int) -> int:
    """The ring of input rows, the sums of a block, and weights where registers do not hold them."""
    k, most = layer.kernel, _PIXEL_BYTES // storage
    rows = 2 * k if layer.stride == 1 else 3 * layer.stride
    weights = 0 if k <= 5 else 4 * k * k * most
    return rows * _staged_columns(layer, groups) * _PIXEL_BYTES + 4 * groups * most + weights


def _up(value: int, unit: int) -> int:
    """How many `unit`s hold `value`."""
    return -(-value // unit)
