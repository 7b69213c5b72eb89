"""The head's 1x1 convolution and global average pooling, without the map between them."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import call


def head_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "identity",
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """``y[n] = mean over h, w of activation(weight @ x[n, :, h, w] + bias)``.

    The last stage of EfficientNet in front of the classifier (arXiv:1905.11946, table 1, stage 9). In plain
    PyTorch::

        y = F.silu(F.conv2d(x, weight, bias)).mean((2, 3))  # activation="silu", and in float32 throughout

    Args:
        x: [N, C, H, W], as :func:`pointwise_conv`.
        weight: [Cout, C, 1, 1] or [Cout, C], dtype of `x`. bias: [Cout], float32 or the dtype of `x`.
        activation: identity, relu, relu6, silu or hardswish.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, Cout] contiguous float32, to write into.

    Returns:
        [N, Cout] float32 (float64 for float64), whatever the dtype of `x`: the map is never rounded.

    Raises: as :func:`depthwise_conv`.
    """
    return call("head_pool", [x, weight, bias, activation], backend, out)
