"""What one call of an operator makes each unit of a GPU do: counts, from shapes alone.

Instructions are those of this project's kernels, counted in their machine code where a comment says so
(docs/resources/cuda.md; those of the fused kernel in `expand_tiles`), and estimates elsewhere. An instruction
of a warp is counted as 32, so that it is one for each of the values that its threads make.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from effnet_fast.inference.cost import work
from effnet_fast.inference.depthwise_blocks import gate_kernels, squeeze_excite_kernels
from effnet_fast.inference.expand_tiles import (
    Tiling,
    choose_tiling,
    filter_instructions,
    position_instructions,
)
from effnet_fast.inference.layers import Layer
from effnet_fast.inference.planner import step_bytes

__all__ = ["GpuWork", "gpu_work"]

# Multiply-adds of a thread's share of one `mma.m16n8k16`.
_MACS_A_SLOT = 16 * 8 * 16 // 32

# Bytes of shared memory that a warp reads for a multiply-add, in tiles of 64 x 32: four fragments of rows and
# two of columns, 512 bytes each, for 16 mma of 2048.
_SHARED_A_MAC = 6 * 512 / (16 * 2048)

# Instructions for an output of `depthwise_conv` on sm_90, counted in machine code: docs/resources/cuda.md.
_DEPTHWISE_SLOTS = {(3, 1): 17.8, (3, 2): 27.8, (5, 1): 35.9, (5, 2): 52.1, (7, 1): 66.5, (7, 2): 83.4}

# The same for an input of 16 bytes that the fused kernel copies: its place, its border, its place in shared
# memory.
_STAGING_SLOTS = 15

# Instructions of a thread of `stem_block`, counted in machine code of sm_90: of a block; of 16 pixels of the
# stem, and of 8 channels of theirs; of 8 channels of a warp's filter, with the sums, before the projection.
_STEM_BLOCK_SETUP, _STEM_TILE_SLOTS, _STEM_GROUP_SLOTS = 1000, 56, 24
_FILTER_SLOTS = (155, 170)


@dataclass(frozen=True)
class GpuWork:
    """Work of one call, in all of its images.

    Attributes:
        memory: bytes read and written that no cache can save, weights included.
        cached: bytes that the L2 cache serves besides: what is read again.
        tensor: multiply-adds of tensor cores, those of padding and of zeros included.
        fma: float32 multiply-adds and additions.
        special: tanh, exponentials and reciprocals.
        issue: instructions of threads.
        shared: bytes read and written in shared memory.
        kernels: that are launched, one after the other.
        items: blocks' worth of work, not rounded.
        blocks: that are launched.
        block_bytes: of `memory`, those that a whole block's worth of work waits for, its weights included.
        warps: of a block.
        resident: blocks that share a multiprocessor.
    """

    memory: float
    cached: float = 0.0
    tensor: float = 0.0
    fma: float = 0.0
    special: float = 0.0
    issue: float = 0.0
    shared: float = 0.0
    kernels: int = 1
    items: float = 1.0
    blocks: int = 1
    block_bytes: float = 0.0
    warps: int = 4
    resident: int = 4


def gpu_work(
    layer: Layer,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    *,
    multiprocessors: int,
    shared_capacity: int,
    tiling: Tiling | None = None,
) -> GpuWork:
    """The work of one call of `layer` on `images` images.

    Args:
        layer: see `network_layers`.
        images: at least 1.
        dtype, image_dtype: of maps and of the images.
        multiprocessors: of the GPU, with `shared_capacity` bytes of shared memory each.
        tiling: of `expand_depthwise`; None for the one that its kernel takes.

    Operators that are composed of others on a GPU are counted as one kernel whose inner tensors cost nothing.

    Raises: ValueError for an `expand_depthwise` of a shape or dtype that has no kernel.
    """
    storage = 4 if layer.x.single else dtype.itemsize
    moved = images * step_bytes(layer, dtype, image_dtype)
    if layer.operator in ("expand_depthwise", "expand_depthwise_pool"):
        tiling = tiling or choose_tiling(layer, images, multiprocessors, shared_capacity)
        if storage != 2 or tiling is None:
            raise ValueError(
                f"{layer.name}: {layer.operator} has no GPU kernel for {_words(layer)} in {dtype}; "
                "three kernels make this block"
            )
        return _expand_depthwise(layer, images, moved, tiling)
    if layer.operator in ("depthwise_conv", "depthwise_conv_gate"):
        return _depthwise(layer, images, moved, storage, multiprocessors)
    if layer.operator == "squeeze_excite_gate":
        return _squeeze_excite_gate(layer, images, moved, multiprocessors)
    count = _COUNTS.get(layer.operator)
    if count is None:
        return _any(layer, images, dtype, image_dtype)
    return count(layer, images, moved, storage)


def _matrix(layer: Layer, images: int, moved: float, storage: int, *, depth: int, pixels: int) -> GpuWork:
    """A product of `pixels` rows an image and the output's channels, over `depth`."""
    channels = layer.y.shape[0]
    rows = images * pixels
    outputs = rows * channels
    activated = layer.activation != "identity"
    # The operand of a projection is multiplied by its gate; an activation takes 2 instructions, its rounding
    # half a one, staging and storing the rest: 3.5 counted, 1.5 for an operand estimated.
    around = 3.5 * outputs if activated else 1.0 * outputs + 1.5 * rows * depth
    weights = channels * depth * storage
    # Weights of narrow products stay in shared memory: see `can_stream` in csrc/cuda/pointwise_conv_launch.h.
    tiles = 1 if depth <= 128 or channels <= 64 else -(-rows // 128)
    counted = GpuWork(
        memory=moved + weights + 4 * channels,
        # The weights once for 128 rows, the rows once for 128 columns.
        cached=(tiles - 1) * weights + (-(-channels // 128) - 1) * rows * depth * storage,
        special=outputs * (layer.activation == "silu"),
        items=rows / 64 * channels / 32,
        blocks=-(-rows // 64) * -(-channels // 32),
        block_bytes=storage * ((64 + 32) * depth + 64 * 32),
        resident=3,
    )
    if storage == 4:  # no tensor cores: a multiply-add an instruction, and a quarter of one to load
        macs = outputs * depth
        return replace(counted, fma=macs, issue=1.25 * macs + around, shared=macs)
    padded = rows * _up(depth, 16) * _up(channels, 8)
    return replace(
        counted,
        tensor=padded,
        fma=outputs if activated else 0,
        issue=padded / _MACS_A_SLOT + around,
        shared=_SHARED_A_MAC * padded + 2 * rows * depth,
    )


def _pointwise(layer: Layer, images: int, moved: float, storage: int) -> GpuWork:
    channels, height, width = layer.x.shape
    return _matrix(layer, images, moved, storage, depth=channels, pixels=height * width)


def _convolution(layer: Layer, images: int, moved: float, storage: int) -> GpuWork:
    """A dense k x k convolution, the stem among them, as a product over all of its taps."""
    _, height, width = layer.y.shape
    depth = layer.kernel**2 * layer.x.shape[0]
    counted = _matrix(layer, images, moved, storage, depth=depth, pixels=height * width)
    # The stem's kernel keeps the rows of an image in shared memory: none is read twice.
    return replace(counted, cached=0.0, resident=5) if layer.operator == "stem_conv" else counted


def _head_pool(layer: Layer, images: int, moved: float, storage: int) -> GpuWork:
    channels, height, width = layer.x.shape
    # Whole groups of 64 rows: no block has rows of two images.
    return _matrix(layer, images, moved, storage, depth=channels, pixels=_up(height * width, 64))


def _depthwise(layer: Layer, images: int, moved: float, storage: int, multiprocessors: int) -> GpuWork:
    channels, height, width = layer.x.shape
    _, out_height, out_width = layer.y.shape
    taps = layer.kernel**2
    outputs = images * channels * out_height * out_width
    slots = _DEPTHWISE_SLOTS.get((layer.kernel, layer.stride), 2.0 * taps + 10)
    # Four columns of a thread read what is under them, once a row.
    read = height * width + height * out_width / 4 * (3 * layer.stride + layer.kernel)
    kernels = gate_kernels(layer, images, multiprocessors, storage) if layer.squeeze else 0
    squeeze = _squeeze_excite(layer, images, kernels) if layer.squeeze else GpuWork(0)
    items = outputs / 4096  # of 128 threads: 4 columns, 8 rows
    return GpuWork(
        memory=moved + storage * taps * channels + 4 * channels + squeeze.memory,
        cached=squeeze.cached,
        fma=outputs * (taps + 1) + squeeze.fma,
        special=outputs * (layer.activation == "silu") + squeeze.special,
        issue=outputs * slots + squeeze.issue,
        shared=images * channels * storage * read,
        kernels=1 + kernels,
        items=items,
        blocks=max(1, -(-outputs // 4096)),
        block_bytes=moved / items,
    )


def _stem_block(layer: Layer, images: int, moved: float, storage: int) -> GpuWork:
    """Stem and depthwise convolution of 16 x 16 pixels a block, the former on 21 times 16 of them with their
    halo; then the sums of the tile, or the projection.
    """
    height, width = layer.convolved_size
    tiles = images * -(-height // 16) * -(-width // 16)
    channels, groups = layer.expanded, layer.expanded // 8
    chunks = -(-groups // 4)
    project = layer.y.shape[0] if layer.operator == "stem_block" else 0
    fragments = -(-project // 8)
    made, filtered = 21 * 16 * channels, 16 * 16 * channels
    slots = (
        _STEM_BLOCK_SETUP + 21 / 4 * (chunks * _STEM_TILE_SLOTS + groups * _STEM_GROUP_SLOTS)
        + groups * (_FILTER_SLOTS[project > 0] + 5 * fragments) + 16 * fragments
    )  # fmt: skip
    activated = layer.activation == "silu"
    return GpuWork(
        memory=moved + storage * channels * (27 + 9 + project) + 4 * (2 * channels + project),
        cached=(tiles - 1) * storage * channels * (27 + 9 + project),
        # K is 32 in the stem, and 72 in the filter: three pairs of taps by 16 values, three taps by 8.
        tensor=tiles * (32 * made + 72 * filtered + 256 * channels * 8 * fragments),
        fma=tiles * ((made + filtered) * activated + filtered),
        special=tiles * (made + filtered) * activated,
        issue=tiles * 128 * slots,
        # Words of the patch for each chunk; the map written, and read 1.5 times in 768 bytes for 16 pixels.
        shared=tiles * (21 * 8 * 128 * chunks + 2 * made + 4 * groups * 6 * 768),
        items=tiles,
        blocks=tiles,
        block_bytes=moved / tiles,
        resident=4 if project else 6,
    )


def _squeeze_excite_gate(layer: Layer, images: int, moved: float, multiprocessors: int) -> GpuWork:
    tiles = layer.x.shape[1]
    kernels = squeeze_excite_kernels(images, tiles, layer.squeeze, multiprocessors)
    both = _squeeze_excite(layer, images, kernels)
    sums = images * layer.x.numel
    return replace(both, memory=moved + both.memory, fma=both.fma + sums, issue=both.issue + 2 * sums)


def _squeeze_excite(layer: Layer, images: int, kernels: int) -> GpuWork:
    """Both layers for every image; their weights are read once from memory, and then from the cache."""
    channels = layer.y.shape[0]
    macs = 2 * layer.squeeze * channels
    return GpuWork(
        memory=4 * (macs + layer.squeeze + channels),
        cached=4 * macs * (images - 1),
        fma=images * macs,
        special=images * (layer.squeeze + channels),
        issue=1.5 * images * macs,
        kernels=kernels,
        items=images * layer.squeeze / 4,
        blocks=images * -(-layer.squeeze // 4),
        block_bytes=2 * 4 * 4 * channels,  # four rows of both layers' weights
    )


def _expand_depthwise(layer: Layer, images: int, moved: float, tiling: Tiling) -> GpuWork:
    channels, height, width = layer.x.shape
    filtered = layer.y.shape[0]
    variant = tiling.variant
    k, chunk, rows = variant.kernel, variant.chunk, variant.rows
    # The sum of the expansion: the input's channels and 8 more, in which the bias rides.
    sixteens, eights = (channels + 8) // 16, (channels + 8) % 16 // 8
    columns = k // 2 * 16 + 8  # a row of taps in pairs, the last one alone
    made = images * tiling.chunks * chunk
    positions, outputs = made * tiling.positions, made * tiling.outputs
    staged = images * tiling.staged
    lines = (rows - 1) * variant.stride + k
    expansion = 32 * position_instructions(variant, channels) / (16 * chunk) / tiling.expansion_balance
    filtering = 32 * filter_instructions(variant) / (16 * 16 * rows) / tiling.filter_balance
    halo = max(0, staged - images * height * width)
    # A block makes every blocks-th tile, and some of the chunks.
    blocks = images * tiling.blocks * -(-tiling.chunks // tiling.block_chunks)
    return GpuWork(
        memory=moved + 2 * filtered * (channels + k * k) + 8 * filtered,
        # Halos, and the weights of every tile but the first: rows with the bias, taps in 4 bytes.
        cached=2 * channels * halo
        + (images * tiling.tiles - 1) * filtered * (2 * (channels + 8) + 4 * k * k),
        tensor=positions * (16 * sixteens + 8 * eights) + outputs * k * columns,
        fma=positions * (layer.expand_activation == "silu") + 2 * outputs,
        special=positions * (layer.expand_activation == "silu") + outputs * (layer.activation == "silu"),
        issue=positions * expansion + outputs * filtering + _STAGING_SLOTS * staged * (channels + 8) / 8,
        # Fragments of 16 positions and 16 channels are 512 bytes; an expanded value is 2.
        shared=positions * ((512 * sixteens + 256 * eights) / (16 * chunk) + 2)
        + outputs * lines * (k // 2 * 512 + 256) / (8 * 16 * rows)
        + 2 * staged * (channels + 8),
        items=blocks,
        blocks=blocks,
        # Of a tile; its parts of the channels all read the whole input.
        block_bytes=moved / (images * tiling.blocks),
        warps=variant.warps,
        resident=tiling.resident,
    )


def _any(layer: Layer, images: int, dtype: torch.dtype, image_dtype: torch.dtype) -> GpuWork:
    """From the counts that every operator has; a multiply-add outside of tensor cores is two instructions."""
    done = work(layer, images, dtype, image_dtype)
    tensor = done.matrix_macs + done.fused_macs
    outputs = images * layer.y.numel
    blocks = max(1, -(-outputs // 4096))
    return GpuWork(
        memory=done.bytes_activations + done.bytes_weights,
        cached=done.bytes_reread,
        tensor=tensor,
        fma=done.vector_macs + done.special,
        special=done.special,
        issue=tensor / _MACS_A_SLOT + 2 * done.vector_macs + 4 * done.special,
        items=blocks,
        blocks=blocks,
        block_bytes=done.bytes_activations / blocks,
    )


def _words(layer: Layer) -> str:
    return f"{layer.x.shape[0]} > {layer.y.shape[0]} channels, {layer.kernel}x{layer.kernel} / {layer.stride}"


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


_COUNTS = {
    "stem_conv": _convolution,
    "dense_conv": _convolution,
    "pointwise_conv": _pointwise,
    "head_pool": _head_pool,
    "stem_block_sums": _stem_block,
    "stem_block": _stem_block,
}
