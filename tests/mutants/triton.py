"""Faults put into the sources of the Triton kernels, one at a time."""

# ruff: noqa: E501 (one fault a line)

from __future__ import annotations

from tests.mutants.mutant import Mutant

FOLDER = "effnet_fast/triton_kernels"

MUTANTS = (
    Mutant("halo", "depthwise_conv.py", "row_mask = (iy + i >= 0) & (iy + i < height)", "row_mask = (iy + i >= 1) & (iy + i < height)"),
    Mutant("last row", "depthwise_conv.py", "& (oy + a // WINDOW < out_height) & channel_mask", "& (oy + a // WINDOW < out_height - 1) & channel_mask"),
    Mutant("padding swapped", "depthwise_conv.py", "oy * STRIDE - top, ox * STRIDE - left", "oy * STRIDE - left, ox * STRIDE - top"),
    Mutant("stride phase", "depthwise_conv.py", "column = ix + first + group * STRIDE", "column = ix + first + group * STRIDE + (STRIDE - 1)"),
    Mutant("pool after rounding", "depthwise_conv.py", "total += tl.where(mask, y, 0.0)", "total += tl.where(mask, y.to(y_ptr.dtype.element_ty).to(tl.float32), 0.0)"),
    Mutant("pixels outside the map pooled", "depthwise_conv.py", "total += tl.where(mask, y, 0.0)", "total += y"),
    Mutant("sums of the last block alone", "depthwise_conv.py", "total += tl.where(mask, y, 0.0)", "total = tl.where(mask, y, 0.0)"),
    Mutant("weights of the first kernel column", "depthwise_conv.py", "(ky * KERNEL + first + kx) * channels + channel", "(ky * KERNEL + kx) * channels + channel"),
    Mutant("bias dropped", "pointwise_conv.py", "total = tl.zeros((ROWS, COLUMNS), tl.float32) + bias[None, :]", "total = tl.zeros((ROWS, COLUMNS), tl.float32) + 0 * bias[None, :]"),
    Mutant("gate of the first image", "pointwise_conv.py", "gate_block = gate_ptr + image * in_channels", "gate_block = gate_ptr"),
    Mutant("residual twice", "pointwise_conv.py", "y += tl.load(residual_block", "y += 2 * tl.load(residual_block"),
    Mutant("first tile of columns everywhere", "pointwise_conv.py", "first_column = (program % column_groups) * sweep * COLUMNS", "first_column = 0"),
    Mutant("last step of channels dropped", "pointwise_conv.py", "for start in range(0, in_channels, DEPTH):", "for start in range(0, in_channels - DEPTH, DEPTH):"),
    Mutant("accumulator of the last step alone", "dot.py", "tl.dot(x, weight, total,", "tl.dot(x, weight, 0 * total,"),
    Mutant("accumulator in 16 bits", "dot.py", 'tl.dot(x, weight, total, input_precision="ieee")', 'tl.dot(x, weight, total, input_precision="ieee").to(tl.float16).to(tl.float32)'),
    Mutant("right edge wraps into the next line", "dense_conv.py", "& (pixel + kx < width)", "& (pixel + kx < width + 1)"),
    Mutant("padding of the stem is raw zero", "stem_conv.py", "rounded(tl.where(inside, x, 0.0),", "rounded(tl.where(k_mask[:, None], x, 0.0),"),
    Mutant("missing pixels counted", "head_pool.py", "tl.where(row_mask, activate(total, ACTIVATION, HALVED, TANH), 0.0)", "activate(total, ACTIVATION, HALVED, TANH)"),
    Mutant("mean of another count", "head_pool.py", "pixels.to(tl.float32)", "(pixels + 1).to(tl.float32)"),
    Mutant("first tile of the sums alone", "squeeze_excite_gate.py", "mask=row_mask & (tile < tiles)", "mask=row_mask & (tile < 0)"),
    Mutant("last squeezed channel dropped", "squeeze_excite_gate.py", "squeezed_channels, column_mask, IMAGES, 1,", "squeezed_channels - 1, column_mask, IMAGES, 1,"),
    Mutant("silu of the halved value", "activations.py", "return x + x * _tanh(x, TANH)", "return x * _tanh(x, TANH)"),
)  # fmt: skip
