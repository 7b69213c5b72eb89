"""Expansion and depthwise convolution in one operator, with pooled sums."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def expand_depthwise_pool(
    x: Tensor,
    w_expand: Tensor,
    b_expand: Tensor | None,
    expand_activation: str,
    w_dw: Tensor,
    b_dw: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "identity",
    *,
    backend: str | Backend = "auto",
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`pointwise_conv` followed by :func:`depthwise_conv_pool`: the expanded map need not reach memory.

    The first two thirds of a mobile inverted bottleneck (arXiv:1801.04381, section 3.3). In plain PyTorch::

        expanded = pointwise_conv(x, w_expand, b_expand, expand_activation)
        y, sums = depthwise_conv_pool(expanded, w_dw, b_dw, stride, padding, activation)

    A tap outside the map reads a zero of the *expanded* map, not the expansion of a zero.

    Args:
        x: [N, C, H, W], as :func:`depthwise_conv`.
        w_expand, b_expand: [M, C, 1, 1] or [M, C] in the dtype of `x`, and [M] in float32 or the dtype of
            `x`.
        w_dw, b_dw: [M, 1, k, k] in the dtype of `x`, k odd, and [M] in float32 or the dtype of `x`.
        expand_activation, activation: after each convolution, in float32.
        stride, padding, backend: as :func:`depthwise_conv`, of the depthwise convolution.
        out: (y, sums), to write into.

    Returns:
        y: [N, M, OH, OW] in channels_last memory, dtype of `x`. sums: [N, T, M], as
            :func:`depthwise_conv_pool`.
        The expanded map is rounded to that dtype where a backend stores it, and may not be where it does not.

    Raises: as :func:`depthwise_conv`.
    """
    return call(
        "expand_depthwise_pool",
        [x, w_expand, b_expand, expand_activation, w_dw, b_dw, stride, four_sided(padding, w_dw), activation],
        backend,
        out,
    )
