"""The operators in plain PyTorch: their specification, and the floor under every backend.

Differentiable, and exact in float64. In float32 and below the rounding points are those of the contract:
inputs and weights are read in the storage dtype, every product is accumulated in float32, bias, activation,
pooling, gate and residual stay in float32, and a result is rounded once when it is stored. So the error of
this code in 16 bits is the yardstick that the kernels' budget is made of.

Arguments are those of the dispatcher schemas, in their order; see the public functions for the mathematics.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import POOL_TILE, single_dtype


def _outside_autocast(function: Callable) -> Callable:
    """`function` with autocast off: it chooses every dtype itself."""

    @functools.wraps(function)
    def wrapper(first: Tensor, *args, **kwargs):
        kind = first.device.type
        if not torch.is_autocast_enabled(kind):
            return function(first, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(first, *args, **kwargs)

    return wrapper


def activate(x: Tensor, activation: str) -> Tensor:
    """The activations of the contract. `clamp` carries a NaN through, which a min/max pair would drop."""
    if activation == "silu":
        return F.silu(x)
    if activation == "relu":
        return F.relu(x)
    if activation == "relu6":
        return x.clamp(0, 6)
    if activation == "hardswish":
        return x * (x + 3).clamp(0, 6) / 6
    return x


def gate_function(x: Tensor, gate: str) -> Tensor:
    return torch.sigmoid(x) if gate == "sigmoid" else (x + 3).clamp(0, 6) / 6


def _conv(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], groups: int = 1) -> Tensor:
    """Convolution of stored values, accumulated and returned in float32 (float64)."""
    dtype = single_dtype(x.dtype)
    top, left, bottom, right = padding
    x, weight = x.to(dtype), weight.to(dtype)
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, None, stride, (top, left), 1, groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, 1, groups)


def _finish(
    accumulated: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None = None
) -> Tensor:
    """Bias, activation, residual, all in the accumulator's dtype."""
    if bias is not None:
        accumulated = accumulated + bias.to(accumulated.dtype)[:, None, None]
    y = activate(accumulated, activation)
    return y if residual is None else y + residual.to(y.dtype)


def _store(y: Tensor, dtype: torch.dtype) -> Tensor:
    return y.to(dtype).contiguous(memory_format=torch.channels_last)


def _matrix(weight: Tensor) -> Tensor:
    """A 1x1 convolution's weight as [out, in]."""
    return weight.flatten(1)


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    return _conv(x, _matrix(weight)[:, :, None, None], 1, (0, 0, 0, 0))


def tile_sums(activated: Tensor) -> Tensor:
    """Sums over 16 x 16 tiles of a [N, C, H, W] map: [N, tiles, C], tile (ty, tx) at ty * TX + tx."""
    n, c, h, w = activated.shape
    rows, columns = -(-h // POOL_TILE), -(-w // POOL_TILE)
    padded = F.pad(activated, (0, columns * POOL_TILE - w, 0, rows * POOL_TILE - h))
    tiles = padded.reshape(n, c, rows, POOL_TILE, columns, POOL_TILE).sum((3, 5))
    return tiles.permute(0, 2, 3, 1).reshape(n, rows * columns, c)


@_outside_autocast
def depthwise_conv(x, weight, bias, stride, padding, activation) -> Tensor:
    y = _finish(_conv(x, weight, stride, padding, x.shape[1]), bias, activation)
    return _store(y, x.dtype)


@_outside_autocast
def depthwise_conv_pool(x, weight, bias, stride, padding, activation) -> tuple[Tensor, Tensor]:
    y = _finish(_conv(x, weight, stride, padding, x.shape[1]), bias, activation)
    return _store(y, x.dtype), tile_sums(y)


@_outside_autocast
def depthwise_conv_gate(
    x, weight, bias, stride, padding, activation, w1, b1, w2, b2, se_activation, gate
) -> tuple[Tensor, Tensor]:
    y, sums = depthwise_conv_pool(x, weight, bias, stride, padding, activation)
    count = y.shape[2] * y.shape[3]
    return y, squeeze_excite_gate(sums, count, w1, b1, w2, b2, se_activation, gate)


@_outside_autocast
def pointwise_conv(x, weight, bias, activation, gate=None, residual=None) -> Tensor:
    dtype = x.dtype
    if gate is not None:
        x = (x.to(gate.dtype) * gate[:, :, None, None]).to(dtype)
    return _store(_finish(_pointwise(x, weight), bias, activation, residual), dtype)


@_outside_autocast
def dense_conv(x, weight, bias, stride, padding, activation, residual=None) -> Tensor:
    return _store(_finish(_conv(x, weight, stride, padding), bias, activation, residual), x.dtype)


@_outside_autocast
def stem_conv(image, weight, bias, stride, padding, activation, mean, std, dtype) -> Tensor:
    x = image.to(single_dtype(dtype))
    if image.dtype == torch.uint8:
        x = x / 255
    if mean is not None:
        x = x - mean[:, None, None]
    if std is not None:
        x = x / std[:, None, None]
    # Zero padding comes after the normalisation: a tap outside the image is a normalised zero.
    return dense_conv(x.to(dtype), weight, bias, stride, padding, activation)


@_outside_autocast
def squeeze_excite_gate(sums, count, w1, b1, w2, b2, activation, gate) -> Tensor:
    mean = sums.sum(1) / count
    squeezed = activate(F.linear(mean, _matrix(w1), b1), activation)
    return gate_function(F.linear(squeezed, _matrix(w2), b2), gate)


@_outside_autocast
def expand_depthwise(
    x, w_expand, b_expand, expand_activation, w_dw, b_dw, stride, padding, activation
) -> Tensor:
    expanded = pointwise_conv(x, w_expand, b_expand, expand_activation)
    return depthwise_conv(expanded, w_dw, b_dw, stride, padding, activation)


@_outside_autocast
def expand_depthwise_pool(
    x, w_expand, b_expand, expand_activation, w_dw, b_dw, stride, padding, activation
) -> tuple[Tensor, Tensor]:
    expanded = pointwise_conv(x, w_expand, b_expand, expand_activation)
    return depthwise_conv_pool(expanded, w_dw, b_dw, stride, padding, activation)


@_outside_autocast
def stem_block_sums(
    image, w_stem, b_stem, w_dw, b_dw, stride, padding, activation, mean, std, dtype
) -> Tensor:
    x = stem_conv(image, w_stem, b_stem, stride, padding, activation, mean, std, dtype)
    return depthwise_conv_pool(x, w_dw, b_dw, 1, (w_dw.shape[-1] // 2,) * 4, activation)[1]


@_outside_autocast
def stem_block(
    image, w_stem, b_stem, w_dw, b_dw, w_project, b_project, stride, padding, activation, gate, mean, std,
    dtype,
) -> Tensor:  # fmt: skip
    x = stem_conv(image, w_stem, b_stem, stride, padding, activation, mean, std, dtype)
    y = depthwise_conv(x, w_dw, b_dw, 1, (w_dw.shape[-1] // 2,) * 4, activation)
    return pointwise_conv(y, w_project, b_project, "identity", gate)


@_outside_autocast
def head_pool(x, weight, bias, activation) -> Tensor:
    return _finish(_pointwise(x, weight), bias, activation).mean((2, 3))


@_outside_autocast
def mbconv(
    x, w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project,
    stride, padding, activation, se_activation, gate, residual,
) -> Tensor:  # fmt: skip
    y, gates = x, None
    if w_expand is not None:
        y = pointwise_conv(y, w_expand, b_expand, activation)
    if w1 is None:
        y = depthwise_conv(y, w_dw, b_dw, stride, padding, activation)
    else:
        y, gates = depthwise_conv_gate(
            y, w_dw, b_dw, stride, padding, activation, w1, b1, w2, b2, se_activation, gate
        )
    return pointwise_conv(y, w_project, b_project, "identity", gates, x if residual else None)


@_outside_autocast
def fused_mbconv(
    x, w_expand, b_expand, w_project, b_project, stride, padding, activation, residual
) -> Tensor:
    expanded = dense_conv(x, w_expand, b_expand, stride, padding, activation)
    return pointwise_conv(expanded, w_project, b_project, "identity", None, x if residual else None)
