"""The head: 1x1 convolution, activation, and mean over pixels; the map between them is never stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import configs
from .activations import activate
from .device import Device
from .dot import dot
from .launch import Launch, ceil_div, vector


@triton.jit(do_not_specialize=["images", "pixels", "in_units", "out_channels", "column_tiles"])
def head_pool_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr,
    images, pixels, in_units, out_channels, column_tiles,
    IMAGES: tl.constexpr, PIXELS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    IN_UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """`COLUMNS` means of each of `IMAGES` images, `PIXELS` pixels of each at a time.

    The rows of a product are [image, pixel], and each image's sum is one program's: its order is fixed.
    """
    in_channels = in_units * IN_UNIT
    program = tl.program_id(0)
    column = (program % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    column_mask = column < out_channels
    first_image = program // column_tiles * IMAGES
    row = tl.arange(0, IMAGES * PIXELS)
    image, pixel = row // PIXELS, row % PIXELS
    x_block = x_ptr + first_image.to(tl.int64) * pixels * in_channels
    weight_block = weight_ptr + column[:, None] * in_channels

    sums = tl.zeros((IMAGES, COLUMNS), tl.float32)
    # Kept inside the loop, what could be computed before it does not occupy registers all along (168 -> 143).
    for first_pixel in tl.range(0, pixels, PIXELS, disable_licm=True, num_stages=1):
        row_mask = ((first_image + image < images) & (first_pixel + pixel < pixels))[:, None]
        x_rows = x_block + (image * pixels + pixel)[:, None] * in_channels
        total = tl.zeros((IMAGES * PIXELS, COLUMNS), tl.float32)
        for start in range(0, in_channels, DEPTH):
            k = start + tl.arange(0, DEPTH)
            k_mask = k < in_channels
            x = tl.load(x_rows + k[None, :], mask=row_mask & k_mask[None, :], other=0.0)
            weight = tl.load(
                weight_block + k[None, :], mask=column_mask[:, None] & k_mask[None, :], other=0.0
            )
            total = dot(x, weight.T, total)
        total += tl.load(bias_ptr + column, mask=column_mask, other=0.0)[None, :]
        # A missing pixel's value is not zero but the activation of the bias.
        activated = tl.where(row_mask, activate(total, ACTIVATION, HALVED, TANH), 0.0)
        sums += tl.sum(tl.reshape(activated, (IMAGES, PIXELS, COLUMNS)), axis=1)
        x_block += PIXELS * in_channels

    image = first_image + tl.arange(0, IMAGES)
    offset = image[:, None].to(tl.int64) * out_channels + column[None, :]
    mask = (image < images)[:, None] & column_mask[None, :]
    tl.store(y_ptr + offset, tl.div_rn(sums, pixels.to(tl.float32)), mask=mask)


def launches(device: Device, outputs, x, weights, out_channels, activation) -> list[Launch]:
    """The launch that serves one call: `x` [N, C, H, W] in channels_last, `weights` arranged."""
    weight, bias = weights
    n, in_channels, height, width = x.shape
    problem = configs.head_pool.Problem(n, height * width, in_channels, out_channels, x.element_size())
    config = configs.choose(problem, device)
    column_tiles = ceil_div(out_channels, config.columns)
    in_unit = vector(in_channels)
    return [
        Launch(
            head_pool_kernel,
            ceil_div(n, config.images) * column_tiles,
            dict(
                x_ptr=x, weight_ptr=weight, bias_ptr=bias, y_ptr=outputs[0], images=n,
                pixels=height * width, in_units=in_channels // in_unit, out_channels=out_channels,
                column_tiles=column_tiles,
            ),
            dict(
                IMAGES=config.images, PIXELS=config.pixels, COLUMNS=config.columns, DEPTH=config.depth,
                IN_UNIT=in_unit, ACTIVATION=activation, TANH=device.has_tanh,
                HALVED=x.dtype != torch.float32,
            ),
            config.warps,
            config.stages,
        )
    ]  # fmt: skip
