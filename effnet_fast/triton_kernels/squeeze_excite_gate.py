"""Squeeze-excite: from pooled sums to one factor per image and channel, all in float32.

Two small matrix products, one after the other, because every excited channel needs all squeezed ones. Where a
map has many pooling tiles, their sums are added first, by more programs than the first product has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import configs
from .activations import activate, gate_function
from .device import Device
from .launch import Launch, ceil_div, vector


@triton.jit
def _products(
    x_block, image_pitch, images, tiles, tile_pitch, weight_block, depth, column_mask,
    IMAGES: tl.constexpr, TILES: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """`IMAGES` rows times `COLUMNS` columns of weights, one vector of `COLUMNS` per image.

    Partial sums along the depth stay in the threads that loaded the factors, and are added at the end: no
    shared memory and no chain of dependent multiply-adds, which would take longer than memory does. For
    that the row is loaded in the shape of the weights.
    """
    totals = ()
    for _ in tl.static_range(IMAGES):
        totals += (tl.zeros((COLUMNS, DEPTH), tl.float32),)
    for start in range(0, depth, DEPTH):
        k = start + tl.arange(0, DEPTH)[None, :]
        mask = column_mask[:, None] & (k < depth)
        weight = tl.load(weight_block[:, None] + k, mask=mask, other=0.0)
        k += tl.zeros((COLUMNS, 1), tl.int32)
        updated = ()
        for i in tl.static_range(IMAGES):
            row, row_mask = x_block + i * image_pitch, mask & (i < images)
            x = tl.load(row + k, mask=row_mask, other=0.0)
            for tile in tl.static_range(1, TILES):
                x += tl.load(row + tile * tile_pitch + k, mask=row_mask & (tile < tiles), other=0.0)
            updated += (totals[i] + x * weight,)
        totals = updated
    sums = ()
    for i in tl.static_range(IMAGES):
        sums += (tl.sum(totals[i], axis=1),)
    return sums


@triton.jit(do_not_specialize=["tiles", "channel_units", "channel_blocks"])
def add_tiles_kernel(
    sums_ptr, total_ptr, tiles, channel_units, channel_blocks,
    UNIT: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums of one image's `CHANNELS` channels over its tiles, `TILES` at a time, always in the same order."""
    channels = channel_units * UNIT
    program = tl.program_id(0)
    image = (program // channel_blocks).to(tl.int64)
    channel = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    tile = tl.arange(0, TILES)[:, None]
    block = sums_ptr + image * tiles * channels + channel[None, :]
    total = tl.zeros((TILES, CHANNELS), tl.float32)
    for start in range(0, tiles, TILES):
        block_mask = (start + tile < tiles) & mask[None, :]
        total += tl.load(block + (start + tile) * channels, mask=block_mask, other=0.0)
    tl.store(total_ptr + image * channels + channel, tl.sum(total, axis=0), mask=mask)


@triton.jit(
    do_not_specialize=["count", "images", "tiles", "channel_units", "squeezed_channels", "column_blocks"]
)
def squeeze_kernel(
    sums_ptr, weight_ptr, bias_ptr, squeezed_ptr,
    count, images, tiles, channel_units, squeezed_channels, column_blocks,
    UNIT: tl.constexpr, IMAGES: tl.constexpr, TILES: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """`IMAGES` images times `COLUMNS` squeezed channels, of images with up to `TILES` tiles."""
    channels = channel_units * UNIT
    program = tl.program_id(0)
    # Neighbouring programs read the same images.
    image = (program // column_blocks) * IMAGES
    column = (program % column_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    column_mask = column < squeezed_channels
    sums = _products(
        sums_ptr + image.to(tl.int64) * tiles * channels, tiles * channels, images - image, tiles, channels,
        weight_ptr + column * channels, channels, column_mask, IMAGES, TILES, COLUMNS, DEPTH,
    )  # fmt: skip
    bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0)
    for i in tl.static_range(IMAGES):
        # The mean is linear: one division per squeezed channel, not one per channel.
        squeezed = activate(sums[i] / count + bias, ACTIVATION, False, False)
        offset = (image + i) * squeezed_channels + column
        tl.store(squeezed_ptr + offset, squeezed, mask=column_mask & (image + i < images))


@triton.jit(do_not_specialize=["images", "squeezed_units", "channels", "column_blocks"])
def excite_kernel(
    squeezed_ptr, weight_ptr, bias_ptr, gate_ptr, images, squeezed_units, channels, column_blocks,
    UNIT: tl.constexpr, IMAGES: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """`IMAGES` images times `COLUMNS` channels of the gate."""
    squeezed_channels = squeezed_units * UNIT
    program = tl.program_id(0)
    image = (program // column_blocks) * IMAGES
    column = (program % column_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    column_mask = column < channels
    sums = _products(
        squeezed_ptr + image * squeezed_channels, squeezed_channels, images - image, 1, 0,
        weight_ptr + column * squeezed_channels, squeezed_channels, column_mask, IMAGES, 1, COLUMNS, DEPTH,
    )  # fmt: skip
    bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0)
    for i in tl.static_range(IMAGES):
        offset = (image + i) * channels + column
        gate = gate_function(sums[i] + bias, GATE)
        tl.store(gate_ptr + offset, gate, mask=column_mask & (image + i < images))


def launches(
    device: Device, outputs: Sequence[Tensor], sums, count, weights, squeeze, activation, gate
) -> list[Launch]:
    """The launches that serve one call: `sums` [N, T, C]; `weights` as device_weights.arrange."""
    w1, b1, w2, b2 = weights
    n, tiles, channels = sums.shape
    config = configs.choose(configs.squeeze_excite_gate.Problem(n, tiles, channels, squeeze), device)
    groups = ceil_div(n, config.images)
    unit = vector(channels)
    # Four float32 values are 16 bytes; a further unit would be a further compilation.
    squeezed_unit = min(vector(squeeze), 4)
    squeezed = torch.empty((n, squeeze), dtype=sums.dtype, device=sums.device)
    adding = []
    if tiles > config.tiles:
        total = torch.empty((n, channels), dtype=sums.dtype, device=sums.device)
        channel_blocks = ceil_div(channels, config.add_channels)
        adding = [
            Launch(
                add_tiles_kernel,
                n * channel_blocks,
                dict(
                    sums_ptr=sums, total_ptr=total, tiles=tiles, channel_units=channels // unit,
                    channel_blocks=channel_blocks,
                ),
                dict(UNIT=unit, TILES=config.add_tiles, CHANNELS=config.add_channels),
            )
        ]  # fmt: skip
        sums, tiles = total, 1
    column_blocks = ceil_div(squeeze, config.squeeze_columns)
    squeezing = Launch(
        squeeze_kernel,
        groups * column_blocks,
        dict(
            sums_ptr=sums, weight_ptr=w1, bias_ptr=b1, squeezed_ptr=squeezed, count=count, images=n,
            tiles=tiles, channel_units=channels // unit, squeezed_channels=squeeze,
            column_blocks=column_blocks,
        ),
        dict(
            UNIT=unit, IMAGES=config.images, TILES=config.tiles, COLUMNS=config.squeeze_columns,
            DEPTH=config.squeeze_depth, ACTIVATION=activation,
        ),
    )  # fmt: skip
    column_blocks = ceil_div(channels, config.excite_columns)
    exciting = Launch(
        excite_kernel,
        groups * column_blocks,
        dict(
            squeezed_ptr=squeezed, weight_ptr=w2, bias_ptr=b2, gate_ptr=outputs[0], images=n,
            squeezed_units=squeeze // squeezed_unit, channels=channels, column_blocks=column_blocks,
        ),
        dict(
            UNIT=squeezed_unit, IMAGES=config.images, COLUMNS=config.excite_columns,
            DEPTH=config.excite_depth, GATE=gate,
        ),
    )  # fmt: skip
    return [*adding, squeezing, exciting]
