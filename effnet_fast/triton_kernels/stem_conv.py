"""The first convolution: gathers a uint8 or float image at any strides, and normalises as it goes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import configs
from .activations import activate
from .device import Device
from .dot import dot
from .launch import Launch, ceil_div, vector
from .rounding import rounded


@triton.jit(
    do_not_specialize=[
        "height", "width", "out_height", "out_width", "image_stride", "channel_stride", "line_stride",
        "pixel_stride", "out_units", "stride", "top", "left", "tiles_down", "tiles_across", "column_tiles",
    ]
)  # fmt: skip
def stem_conv_kernel(
    image_ptr, weight_ptr, bias_ptr, mean_ptr, std_ptr, y_ptr,
    height, width, out_height, out_width,
    image_stride, channel_stride, line_stride, pixel_stride,
    out_units, stride, top, left, tiles_down, tiles_across, column_tiles,
    KERNEL: tl.constexpr, CHANNELS: tl.constexpr, BYTES: tl.constexpr, WIDE: tl.constexpr,
    LINES: tl.constexpr, PIXELS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """One tile of `LINES` x `PIXELS` outputs of one image times `COLUMNS` output channels.

    Taps and channels are one dimension k, in the order of the weight: [ky, kx, channel]. `BYTES` says that
    the image holds bytes, 255 for one; `WIDE` that offsets inside an image pass 2**31 elements.
    """
    out_channels = out_units * OUT_UNIT
    program = tl.program_id(0)
    column = (program % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    column_mask = column < out_channels
    tile = program // column_tiles
    image = (tile // (tiles_down * tiles_across)).to(tl.int64)
    tile_y = tile // tiles_across % tiles_down
    tile_x = tile % tiles_across
    # The sides of a tile are constants: a division by the width for each pixel would be half of the kernel.
    row = tl.arange(0, LINES * PIXELS)
    out_y, out_x = tile_y * LINES + row // PIXELS, tile_x * PIXELS + row % PIXELS
    line, pixel = out_y * stride - top, out_x * stride - left
    if WIDE:
        channel_stride = channel_stride.to(tl.int64)
        line_stride = line_stride.to(tl.int64)
        pixel_stride = pixel_stride.to(tl.int64)
    image_block = image_ptr + image * image_stride
    row_offset = line * line_stride + pixel * pixel_stride

    weight_block = weight_ptr + column[:, None] * (KERNEL * KERNEL * CHANNELS)
    bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0)
    total = tl.zeros((LINES * PIXELS, COLUMNS), tl.float32) + bias[None, :]
    for start in range(0, KERNEL * KERNEL * CHANNELS, DEPTH):
        k = start + tl.arange(0, DEPTH)
        k_mask = k < KERNEL * KERNEL * CHANNELS
        ky, kx, channel = k // CHANNELS // KERNEL, k // CHANNELS % KERNEL, k % CHANNELS
        k_offset = ky * line_stride + kx * pixel_stride + channel * channel_stride
        # Negative coordinates are large as unsigned ones. k comes first and lies along a warp's lanes: what
        # depends on k alone is then computed for one k a thread, and not for each of them.
        inside = (line[None, :] + ky[:, None]).to(tl.uint32, bitcast=True) < height.to(tl.uint32)
        inside &= (pixel[None, :] + kx[:, None]).to(tl.uint32, bitcast=True) < width.to(tl.uint32)
        inside &= k_mask[:, None]
        x = tl.load(image_block + (row_offset[None, :] + k_offset[:, None]), mask=inside, other=0)
        x = x.to(tl.float32)
        if BYTES:
            x *= 1.0 / 255.0
        if mean_ptr is not None:
            x -= tl.load(mean_ptr + channel)[:, None]
        if std_ptr is not None:
            x *= tl.div_rn(1.0, tl.load(std_ptr + channel))[:, None]
        # Zero padding comes after the normalisation.
        x = rounded(tl.where(inside, x, 0.0), weight_ptr.dtype.element_ty)
        weight = tl.load(weight_block + k[None, :], mask=column_mask[:, None] & k_mask[None, :], other=0.0)
        total = dot(x.T, weight.T, total)

    y = activate(total, ACTIVATION, HALVED, TANH)
    # 64-bit where a tensor may pass 2**31 elements, 32-bit within one image's tile.
    first = (image * out_height + tile_y * LINES) * out_width + tile_x * PIXELS
    offset = (row // PIXELS * out_width + row % PIXELS)[:, None] * out_channels + column[None, :]
    mask = (out_y < out_height) & (out_x < out_width)
    tl.store(
        y_ptr + first * out_channels + offset,
        rounded(y, y_ptr.dtype.element_ty), mask=mask[:, None] & column_mask[None, :],
    )  # fmt: skip


def launches(
    device: Device,
    outputs,
    image,
    weights,
    out_channels,
    kernel,
    stride,
    padding,
    activation,
    mean,
    std,
    dtype,
) -> list[Launch]:
    """The launch that serves one call: `image` [N, C, H, W] at any strides, `weights` arranged."""
    weight, bias = weights
    n, channels, height, width = image.shape
    out_height, out_width = outputs[0].shape[2:]
    problem = configs.stem_conv.Problem(
        n, out_height, out_width, kernel * kernel * channels, out_channels, dtype.itemsize
    )
    config = configs.choose(problem, device)
    tiles_down, tiles_across = ceil_div(out_height, config.lines), ceil_div(out_width, config.pixels)
    column_tiles = ceil_div(out_channels, config.columns)
    out_unit = vector(out_channels)
    return [
        Launch(
            stem_conv_kernel,
            n * tiles_down * tiles_across * column_tiles,
            dict(
                image_ptr=image, weight_ptr=weight, bias_ptr=bias, mean_ptr=mean, std_ptr=std,
                y_ptr=outputs[0], height=height, width=width, out_height=out_height, out_width=out_width,
                image_stride=image.stride(0), channel_stride=image.stride(1), line_stride=image.stride(2),
                pixel_stride=image.stride(3), out_units=out_channels // out_unit, stride=stride,
                top=padding[0], left=padding[1], tiles_down=tiles_down, tiles_across=tiles_across,
                column_tiles=column_tiles,
            ),
            dict(
                KERNEL=kernel, CHANNELS=channels, BYTES=image.dtype == torch.uint8,
                WIDE=_extent(image, kernel, stride, config) >= 2**31,
                LINES=config.lines, PIXELS=config.pixels, COLUMNS=config.columns, DEPTH=config.depth,
                OUT_UNIT=out_unit, ACTIVATION=activation, TANH=device.has_tanh,
                HALVED=dtype != torch.float32,
            ),
            config.warps,
            config.stages,
        )
    ]  # fmt: skip


def _extent(image: torch.Tensor, kernel: int, stride: int, config) -> int:
    """Upper bound of offsets inside one image, of taps outside it too: they are computed, if never read."""
    _, channel_stride, line_stride, pixel_stride = image.stride()
    _, channels, height, width = image.shape
    lines, pixels = height + kernel + config.lines * stride, width + kernel + config.pixels * stride
    return channels * channel_stride + lines * line_stride + pixels * pixel_stride
