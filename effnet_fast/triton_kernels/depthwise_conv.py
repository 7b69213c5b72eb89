"""Depthwise convolution: bias and activation in one pass, and the sums of squeeze-excite beside them.

A thread holds a few channels of several output pixels and loads an input pixel once for all outputs above and
below it (`taps` of one kernel column at a time), or for all outputs around it (`taps` of the whole kernel).
Every other arrangement that Triton can express loads a pixel once per tap, and then loads, masks and
conversions outnumber the multiply-adds: see docs/kernels.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import configs
from .activations import activate
from .configs.depthwise_conv import POOL_TILE
from .device import Device
from .launch import Launch, ceil_div, vector
from .rounding import rounded

_TILE = tl.constexpr(POOL_TILE)


@triton.jit
def _kernel_columns(weight_ptr, first, channels, channel, mask, KERNEL: tl.constexpr, TAPS: tl.constexpr):
    """Weights of `TAPS` columns of the kernel from the `first` on, as float32, by row and column."""
    weights = ()
    for ky in tl.static_range(KERNEL):
        for kx in tl.static_range(TAPS):
            offset = (ky * KERNEL + first + kx) * channels + channel
            weights += (tl.load(weight_ptr + offset, mask=mask, other=0.0).to(tl.float32),)
    return weights


@triton.jit(
    do_not_specialize=[
        "height", "width", "out_height", "out_width", "channel_units", "top", "left", "tiles", "tile_columns",
        "channel_blocks",
    ]
)  # fmt: skip
def depthwise_conv_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, sums_ptr,
    height, width, out_height, out_width, channel_units, top, left, tiles, tile_columns, channel_blocks,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, UNIT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, CHANNELS: tl.constexpr,
    TAPS: tl.constexpr, ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """One 16 x 16 tile of one image's outputs times `CHANNELS` channels, `ROWS` x `COLUMNS` pixels at a time.

    Pixel columns are `COLUMNS` / `WINDOW` groups side by side in a tensor; the `ROWS` x `WINDOW` pixels of a
    group are a tuple of tensors, which the compiler keeps in registers and indexes at no cost. The tile is
    the slot of the pooled sums, so its program alone writes them, always in the same order.
    """
    GROUPS: tl.constexpr = COLUMNS // WINDOW
    channels = channel_units * UNIT
    program = tl.program_id(0)
    # Neighbouring programs share cache lines of pixels, then the halo of their tiles.
    channel = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    tile = (program // channel_blocks) % tiles
    image = (program // (channel_blocks * tiles)).to(tl.int64)
    tile_row, tile_column = (tile // tile_columns) * _TILE, (tile % tile_columns) * _TILE
    group = tl.arange(0, GROUPS)[:, None] * WINDOW
    channel_mask = channel < channels
    # Of the shape of a block, so that weights and bias arrive in the threads that use them, without a detour
    # through shared memory. Both are loaded again for every step: registers are scarcer than cache hits.
    block_channel = channel + tl.zeros_like(group)
    block_mask = block_channel < channels
    row_pitch, out_row_pitch = width * channels, out_width * channels
    total = tl.zeros((GROUPS, CHANNELS), tl.float32)

    column_blocks = tl.cdiv(tl.minimum(_TILE, out_width - tile_column), COLUMNS)
    steps = tl.cdiv(tl.minimum(_TILE, out_height - tile_row), ROWS) * column_blocks
    for step in tl.range(steps, disable_licm=True):
        oy = tile_row + (step // column_blocks) * ROWS
        ox = tile_column + (step % column_blocks) * COLUMNS
        iy, ix = oy * STRIDE - top, ox * STRIDE - left
        accumulators = ()
        for _ in tl.static_range(ROWS * WINDOW):
            accumulators += (tl.zeros((GROUPS, CHANNELS), tl.float32),)
        # A loop at run time: unrolled, its weights would all be held in registers at once, and spill.
        for first in tl.range(0, KERNEL, TAPS, disable_licm=True):
            weights = _kernel_columns(weight_ptr, first, channels, block_channel, block_mask, KERNEL, TAPS)
            # 64-bit where a tensor may pass 2**31 elements, 32-bit within the block.
            x_block = x_ptr + ((image * height + iy) * width + ix + first) * channels
            column = ix + first + group * STRIDE
            offset = group * (STRIDE * channels) + channel
            for i in tl.static_range((ROWS - 1) * STRIDE + KERNEL):
                row_mask = (iy + i >= 0) & (iy + i < height)
                for j in tl.static_range((WINDOW - 1) * STRIDE + TAPS):
                    mask = (column + j >= 0) & (column + j < width) & channel_mask & row_mask
                    pixels = x_block + offset + (i * row_pitch + j * channels)
                    x = tl.load(pixels, mask=mask, other=0.0).to(tl.float32)
                    updated = ()
                    for a in tl.static_range(ROWS * WINDOW):
                        # Output a lies at row a // WINDOW and column a % WINDOW of its group, and this pixel
                        # under its tap i - a // WINDOW * STRIDE, j - a % WINDOW * STRIDE, if it has one.
                        if (
                            i >= a // WINDOW * STRIDE
                            and i < a // WINDOW * STRIDE + KERNEL
                            and j >= a % WINDOW * STRIDE
                            and j < a % WINDOW * STRIDE + TAPS
                        ):
                            weight = weights[(i - a // WINDOW * STRIDE) * TAPS + j - a % WINDOW * STRIDE]
                            updated += (accumulators[a] + x * weight,)
                        else:
                            updated += (accumulators[a],)
                    accumulators = updated

        y_block = y_ptr + ((image * out_height + oy) * out_width + ox) * channels
        offset = group * channels + channel
        bias = tl.load(bias_ptr + block_channel, mask=block_mask, other=0.0)
        for a in tl.static_range(ROWS * WINDOW):
            mask = (ox + group + a % WINDOW < out_width) & (oy + a // WINDOW < out_height) & channel_mask
            y = activate(accumulators[a] + bias, ACTIVATION, HALVED, TANH)
            if sums_ptr is not None:
                total += tl.where(mask, y, 0.0)
            pixels = y_block + offset + (a // WINDOW * out_row_pitch + a % WINDOW * channels)
            tl.store(pixels, rounded(y, y_ptr.dtype.element_ty), mask=mask)

    if sums_ptr is not None:
        slot = sums_ptr + (image * tiles + tile) * channels
        tl.store(slot + channel, tl.sum(total, axis=0)[None, :], mask=channel_mask)


def launches(
    device: Device, outputs: Sequence[Tensor], x, weights, kernel, stride, padding, activation
) -> list[Launch]:
    """The launch that serves one call: `x` [N, C, H, W] channels_last; `weights` as device_weights.arrange.

    `outputs` are the map alone, or the map and its sums.
    """
    weight, bias = weights
    y, sums = (*outputs, None)[:2]
    (n, channels, height, width), (out_height, out_width) = x.shape, y.shape[2:]
    problem = configs.depthwise_conv.Problem(
        n, out_height, out_width, channels, kernel, stride, x.element_size(), sums is not None
    )
    config = configs.choose(problem, device)
    tile_columns = ceil_div(out_width, POOL_TILE)
    tiles = ceil_div(out_height, POOL_TILE) * tile_columns
    channel_blocks = ceil_div(channels, config.channels)
    unit = vector(channels)
    return [
        Launch(
            depthwise_conv_kernel,
            n * tiles * channel_blocks,
            dict(
                x_ptr=x, weight_ptr=weight, bias_ptr=bias, y_ptr=y, sums_ptr=sums, height=height, width=width,
                out_height=out_height, out_width=out_width, channel_units=channels // unit, top=padding[0],
                left=padding[1], tiles=tiles, tile_columns=tile_columns, channel_blocks=channel_blocks,
            ),
            dict(
                KERNEL=kernel, STRIDE=stride, UNIT=unit, ROWS=config.rows, COLUMNS=config.columns,
                WINDOW=config.window, CHANNELS=config.channels, TAPS=config.taps, ACTIVATION=activation,
                HALVED=x.dtype != torch.float32, TANH=device.has_tanh,
            ),
            config.warps,
        )
    ]  # fmt: skip
