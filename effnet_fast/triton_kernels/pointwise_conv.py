"""1x1 convolution: squeeze-excite gate, bias, activation, residual, in one pass over memory."""

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


@triton.jit
def _gated(x, gate_ptr, k, k_mask):
    """`x` [rows, depth] of one image times its gate, rounded to storage, because that is what a dot reads."""
    if gate_ptr is not None:
        gate = tl.load(gate_ptr + k, mask=k_mask, other=0.0)
        x = rounded(x.to(tl.float32) * gate[None, :], x.dtype)
    return x


@triton.jit
def _finish(
    total, y_block, residual_block, row_mask, column, column_mask,
    ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """Activation, residual, and the one rounding. The blocks point at each pixel's first channel."""
    y = activate(total, ACTIVATION, HALVED, TANH)
    mask = row_mask & column_mask[None, :]
    if residual_block is not None:
        y += tl.load(residual_block + column[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(y_block + column[None, :], rounded(y, y_block.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "in_units", "out_units", "row_tiles", "column_groups", "sweep"])
def pointwise_conv_kernel(
    x_ptr, weight_ptr, bias_ptr, gate_ptr, residual_ptr, y_ptr,
    rows, in_units, out_units, row_tiles, column_groups, sweep,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WHOLE: tl.constexpr,
    IN_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """`ROWS` pixels of one image times `sweep` blocks of `COLUMNS` output channels, one after the other.

    `WHOLE` says that `DEPTH` covers all input channels: then the pixels are read, and gated, once, and only
    weights move while the columns are swept. Otherwise `sweep` is 1 and the input channels are looped over.
    Row tiles lie inside one image, so that the gate is a vector and not a matrix (a gate per element doubles
    the loads of the left operand).
    """
    in_channels, out_channels = in_units * IN_UNIT, out_units * OUT_UNIT
    program = tl.program_id(0)
    # Neighbouring programs share their pixels, which the second then finds in the L2 cache.
    first_column = (program % column_groups) * sweep * COLUMNS
    row_tile = program // column_groups
    image = (row_tile // row_tiles).to(tl.int64)
    first_row = (row_tile % row_tiles) * ROWS
    row = tl.arange(0, ROWS)
    row_mask = (first_row + row < rows)[:, None]
    # 64-bit where a tensor may pass 2**31 elements, 32-bit within the block.
    pixel = image * rows + first_row
    x_block = x_ptr + pixel * in_channels + row[:, None] * in_channels
    y_block = y_ptr + pixel * out_channels + row[:, None] * out_channels
    residual_block = None
    if residual_ptr is not None:
        residual_block = residual_ptr + pixel * out_channels + row[:, None] * out_channels
    gate_block = None
    if gate_ptr is not None:
        gate_block = gate_ptr + image * in_channels

    if WHOLE:
        k = tl.arange(0, DEPTH)
        k_mask = k < in_channels
        x = tl.load(x_block + k[None, :], mask=row_mask & k_mask[None, :], other=0.0)
        x = _gated(x, gate_block, k, k_mask)
        for start in range(first_column, min(first_column + sweep * COLUMNS, out_channels), COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            column_mask = column < out_channels
            weight = tl.load(
                weight_ptr + column[:, None] * in_channels + k[None, :],
                mask=column_mask[:, None] & k_mask[None, :], other=0.0,
            )  # fmt: skip
            bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0)
            total = dot(x, weight.T, tl.zeros((ROWS, COLUMNS), tl.float32) + bias[None, :])
            _finish(total, y_block, residual_block, row_mask, column, column_mask, ACTIVATION, HALVED, TANH)
    else:
        column = first_column + tl.arange(0, COLUMNS)
        column_mask = column < out_channels
        weight_block = weight_ptr + column[:, None] * in_channels
        bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0)
        total = tl.zeros((ROWS, COLUMNS), tl.float32) + bias[None, :]
        for start in range(0, in_channels, DEPTH):
            k = start + tl.arange(0, DEPTH)
            k_mask = k < in_channels
            x = tl.load(x_block + k[None, :], mask=row_mask & k_mask[None, :], other=0.0)
            weight = tl.load(
                weight_block + k[None, :], mask=column_mask[:, None] & k_mask[None, :], other=0.0
            )
            total = dot(_gated(x, gate_block, k, k_mask), weight.T, total)
        _finish(total, y_block, residual_block, row_mask, column, column_mask, ACTIVATION, HALVED, TANH)


def launches(device: Device, outputs, x, weights, out_channels, activation, gate, residual) -> list[Launch]:
    """The launch that serves one call: `x` [N, C, H, W] in channels_last, `weights` arranged."""
    weight, bias = weights
    n, in_channels, height, width = x.shape
    # Without a gate nothing tells images apart, and no tile is left half empty at an image's end.
    images, rows = (n, height * width) if gate is not None else (1, n * height * width)
    problem = configs.pointwise_conv.Problem(
        images, rows, in_channels, out_channels, x.element_size(), gate is not None, residual is not None
    )
    config = configs.choose(problem, device)
    row_tiles = ceil_div(rows, config.rows)
    column_groups = ceil_div(out_channels, config.columns * config.sweep)
    in_unit, out_unit = vector(in_channels), vector(out_channels)
    return [
        Launch(
            pointwise_conv_kernel,
            images * row_tiles * column_groups,
            dict(
                x_ptr=x, weight_ptr=weight, bias_ptr=bias, gate_ptr=gate, residual_ptr=residual,
                y_ptr=outputs[0], rows=rows, in_units=in_channels // in_unit,
                out_units=out_channels // out_unit, row_tiles=row_tiles, column_groups=column_groups,
                sweep=config.sweep,
            ),
            dict(
                ROWS=config.rows, COLUMNS=config.columns, DEPTH=config.depth,
                WHOLE=in_channels <= config.depth, IN_UNIT=in_unit, OUT_UNIT=out_unit,
                ACTIVATION=activation, TANH=device.has_tanh, HALVED=x.dtype != torch.float32,
            ),
            config.warps,
            config.stages,
        )
    ]  # fmt: skip
