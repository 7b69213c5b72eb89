"""Depthwise convolution that also pools what it writes."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def depthwise_conv_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "identity",
    *,
    backend: str | Backend = "auto",
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`depthwise_conv`, and the sums of its result over 16 x 16 tiles.

    The first half of the squeeze in squeeze-and-excitation (arXiv:1709.01507, section 3.1), without a second
    read of the map. In plain PyTorch::

        y = depthwise_conv(x, weight, bias, stride, padding, activation)
        sums.sum(1) == y.sum((2, 3))                        # but of the float32 values, before y is rounded

    Args: those of :func:`depthwise_conv`; `out` is (y, sums).

    Returns:
        y: [N, C, OH, OW], as :func:`depthwise_conv`.
        sums: [N, T, C] float32 (float64 for float64), T = ceil(OH / 16) * ceil(OW / 16), of the activated
            float32 values: a 16-bit sum overflows on real networks. Only the total over T is the same on
            every backend.

    Raises: as :func:`depthwise_conv`.
    """
    return call(
        "depthwise_conv_pool",
        [x, weight, bias, stride, four_sided(padding, weight), activation],
        backend,
        out,
    )
