"""Dense k x k convolution with bias, activation and residual."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def dense_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "identity",
    residual: Tensor | None = None,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """``y[n] = activation(x[n] * weight + bias) + residual[n]``, with ``*`` a strided, padded correlation.

    The fused expansion of EfficientNetV2 (arXiv:2104.00298, section 3.2) and of the EdgeTPU models. In plain
    PyTorch::

        top, left, bottom, right = padding
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride)
        y = F.silu(y) + residual                            # activation="silu"

    Args:
        x: [N, C, H, W], as :func:`depthwise_conv`.
        weight: [Cout, C, k, k], k odd, dtype of `x`. bias: [Cout], float32 or the dtype of `x`.
        stride, padding, activation, backend: as :func:`depthwise_conv`.
        residual: [N, Cout, OH, OW], dtype of `x`; added in float32 after the activation.
        out: [N, Cout, OH, OW] in channels_last memory, to write into; must not overlap an input.

    Returns:
        [N, Cout, OH, OW] in channels_last memory, dtype of `x`, rounded once from float32.

    Raises: as :func:`depthwise_conv`.
    """
    return call(
        "dense_conv",
        [x, weight, bias, stride, four_sided(padding, weight), activation, residual],
        backend,
        out,
    )
