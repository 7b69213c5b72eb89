"""Bytes that each rung of the ladder moves between its kernels, counted from shapes alone.

Every map that a kernel reads or writes, once a kernel. Weights are left out, which a batch shares, and so are
means and gates: one value a channel.
"""

from __future__ import annotations

from benchmarks.blocks import BlockCase
from benchmarks.cases import DTYPES


def rung_bytes(case: BlockCase, rung: str) -> int | None:
    """Bytes of one image in `rung` of the ladder; None for torch.compile, which chooses its own kernels."""
    if rung == "compiled":
        return None
    return DTYPES[case.dtype].itemsize * _values(case, rung)


def _values(case: BlockCase, rung: str) -> int:
    first, depthwise, project = case.layers[0], case.depthwise, case.layers[-1]
    x, y = first.x.numel, project.y.numel
    expands = len(case.layers) == 3
    wide = depthwise.x.numel if expands else 0  # the expanded map
    filtered = depthwise.y.numel
    residual = project.residual is not None
    expansion = x + wide if expands else 0
    convolution, projection = depthwise.x.numel + filtered, filtered + y
    if rung == "whole":
        return x + y
    if rung == "expansion-fused":
        return x + filtered + projection + residual * x
    if rung in ("three-triton", "three-native"):
        return expansion + convolution + projection + residual * x
    total = expansion + convolution + projection
    if depthwise.squeeze:
        total += 3 * filtered  # the mean reads; the gate reads and writes
    if residual:
        total += 2 * y + x  # adding reads both and writes
    if rung == "convolutions":
        return total
    total += 2 * (wide + filtered)  # activations, in place
    total += _padding_values(case)
    if rung == "eager":
        total += 2 * (wide + filtered + y)  # batch norms
    return total


def _padding_values(case: BlockCase) -> int:
    """What a padding that differs at both ends costs: a padded copy, which is read in the place of x."""
    layer = case.depthwise
    top, left, bottom, right = layer.padding
    if (top, left) == (bottom, right):
        return 0
    channels, height, width = layer.x.shape
    return 2 * channels * (height + top + bottom) * (width + left + right)
