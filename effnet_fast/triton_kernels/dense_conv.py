"""k x k convolution over all channels: a matrix product whose left operand is gathered as it is read."""

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
        "height", "width", "out_height", "out_width", "in_units", "out_units", "kernel", "stride", "top",
        "left", "row_tiles", "column_tiles",
    ]
)  # fmt: skip
def dense_conv_kernel(
    x_ptr, weight_ptr, bias_ptr, residual_ptr, y_ptr,
    height, width, out_height, out_width, in_units, out_units, kernel, stride, top, left,
    row_tiles, column_tiles,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    IN_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """One block of `ROWS` output pixels of one image times `COLUMNS` output channels.

    Each step takes `DEPTH` input channels of one tap; taps and channels are one loop, so that the pipeline
    does not drain between taps.
    """
    in_channels, out_channels = in_units * IN_UNIT, out_units * OUT_UNIT
    program = tl.program_id(0)
    column = (program % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    column_mask = column < out_channels
    row_tile = program // column_tiles
    image = (row_tile // row_tiles).to(tl.int64)
    first_row = (row_tile % row_tiles) * ROWS
    row = first_row + tl.arange(0, ROWS)
    row_mask = row < out_height * out_width
    # The upper left tap of each pixel. A block's own offsets count from its first line: 32-bit.
    first_line = first_row // out_width
    line = (row // out_width) * stride - top
    pixel = (row % out_width) * stride - left
    x_image = x_ptr + (image * height + (first_line * stride - top)) * width * in_channels
    x_block = ((row // out_width - first_line) * stride * width + pixel)[:, None] * in_channels

    weight_block = weight_ptr + column[:, None] * (kernel * kernel * in_channels)
    bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0)
    total = tl.zeros((ROWS, COLUMNS), tl.float32) + bias[None, :]
    depth_steps = tl.cdiv(in_channels, DEPTH)
    for step in range(kernel * kernel * depth_steps):
        tap = step // depth_steps
        ky = tap // kernel
        kx = tap - ky * kernel
        k = (step - tap * depth_steps) * DEPTH + tl.arange(0, DEPTH)
        k_mask = k < in_channels
        inside = (line + ky >= 0) & (line + ky < height) & (pixel + kx >= 0) & (pixel + kx < width) & row_mask
        x = tl.load(
            x_image + (x_block + (ky * width + kx) * in_channels + k[None, :]),
            mask=inside[:, None] & k_mask[None, :], other=0.0,
        )  # fmt: skip
        weight = tl.load(
            weight_block + tap * in_channels + k[None, :],
            mask=column_mask[:, None] & k_mask[None, :], other=0.0,
        )  # fmt: skip
        total = dot(x, weight.T, total)

    y = activate(total, ACTIVATION, HALVED, TANH)
    offset = (image * out_height * out_width + first_row) * out_channels + (
        tl.arange(0, ROWS)[:, None] * out_channels + column[None, :]
    )
    mask = row_mask[:, None] & column_mask[None, :]
    if residual_ptr is not None:
        y += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, rounded(y, y_ptr.dtype.element_ty), mask=mask)


def launches(
    device: Device, outputs, x, weights, out_channels, kernel, stride, padding, activation, residual
) -> list[Launch]:
    """The launch that serves one call: `x` [N, C, H, W] in channels_last, `weights` arranged."""
    weight, bias = weights
    n, in_channels, height, width = x.shape
    out_height, out_width = outputs[0].shape[2:]
    rows = out_height * out_width
    problem = configs.dense_conv.Problem(
        n, rows, kernel * kernel, in_channels, out_channels, x.element_size(), residual is not None
    )
    config = configs.choose(problem, device)
    row_tiles, column_tiles = ceil_div(rows, config.rows), ceil_div(out_channels, config.columns)
    in_unit, out_unit = vector(in_channels), vector(out_channels)
    return [
        Launch(
            dense_conv_kernel,
            n * row_tiles * column_tiles,
            dict(
                x_ptr=x, weight_ptr=weight, bias_ptr=bias, residual_ptr=residual, y_ptr=outputs[0],
                height=height, width=width, out_height=out_height, out_width=out_width,
                in_units=in_channels // in_unit, out_units=out_channels // out_unit, kernel=kernel,
                stride=stride, top=padding[0], left=padding[1], row_tiles=row_tiles,
                column_tiles=column_tiles,
            ),
            dict(
                ROWS=config.rows, COLUMNS=config.columns, DEPTH=config.depth, IN_UNIT=in_unit,
                OUT_UNIT=out_unit, ACTIVATION=activation, TANH=device.has_tanh,
                HALVED=x.dtype != torch.float32,
            ),
            config.warps,
            config.stages,
        )
    ]  # fmt: skip
