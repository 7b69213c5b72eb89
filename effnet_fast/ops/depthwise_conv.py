"""Depthwise convolution with bias and activation."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "identity",
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """``y[n, c] = activation(x[n, c] * weight[c, 0] + bias[c])``, with ``*`` a strided, padded correlation.

    The middle of a mobile inverted bottleneck (EfficientNet, arXiv:1905.11946, section 4; MobileNetV2,
    arXiv:1801.04381, section 3.1) with the batch norm folded into weight and bias. In plain PyTorch::

        top, left, bottom, right = padding
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, groups=C)
        y = F.silu(y)                                       # activation="silu"

    Args:
        x: [N, C, H, W], channels_last memory for speed (any strides are accepted); float32, float16,
            bfloat16, or float64 on the reference. N may be 0.
        weight: [C, 1, k, k], k odd, dtype of `x`.
        bias: [C], float32 or the dtype of `x`; added in float32.
        stride: of both axes.
        padding: None for k // 2 on every side, an int, (height, width), or (top, left, bottom, right):
            TensorFlow's SAME and symmetric padding are the same kernel.
        activation: identity, relu, relu6, silu or hardswish, in float32.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, C, OH, OW] in channels_last memory, to write into; must not overlap an input.

    Returns:
        [N, C, OH, OW] in channels_last memory, dtype of `x`, rounded once from float32.

    Raises:
        ValueError: shapes, values or devices that do not fit. TypeError: dtypes. RuntimeError: `backend`
            cannot serve the call, or `out` with an input that requires grad.

    An input that requires grad makes this the differentiable reference. Under autocast `x` and `weight` are
    cast.
    """
    return call(
        "depthwise_conv", [x, weight, bias, stride, four_sided(padding, weight), activation], backend, out
    )
