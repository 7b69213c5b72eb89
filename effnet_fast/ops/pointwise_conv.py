"""1x1 convolution with a gate in front and activation and residual behind."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import call


def pointwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "identity",
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """``y[n, :, h, w] = activation(weight @ (x[n, :, h, w] * gate[n]) + bias) + residual[n, :, h, w]``.

    Expansion and projection of a mobile inverted bottleneck (arXiv:1801.04381, section 3.3; EfficientNet,
    arXiv:1905.11946, section 4). In plain PyTorch::

        x = (x.float() * gate[:, :, None, None]).to(x.dtype)
        y = F.silu(F.conv2d(x, weight, bias)) + residual    # activation="silu"

    Args:
        x: [N, C, H, W], channels_last memory for speed (any strides are accepted); float32, float16,
            bfloat16, or float64 on the reference. N may be 0.
        weight: [Cout, C, 1, 1] or [Cout, C], dtype of `x`.
        bias: [Cout], float32 or the dtype of `x`; added in float32.
        activation: identity, relu, relu6, silu or hardswish, in float32.
        gate: [N, C] float32 (float64 for float64); ``x * gate`` is rounded once to the dtype of `x`.
        residual: [N, Cout, H, W], dtype of `x`; added in float32 after the activation.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, Cout, H, W] in channels_last memory, to write into; must not overlap an input.

    Returns:
        [N, Cout, H, W] in channels_last memory, dtype of `x`, rounded once from float32.

    Raises:
        ValueError: shapes, values or devices that do not fit. TypeError: dtypes. RuntimeError: `backend`
            cannot serve the call, or `out` with an input that requires grad.

    An input that requires grad makes this the differentiable reference. Under autocast `x`, `weight` and
    `residual` are cast.
    """
    return call("pointwise_conv", [x, weight, bias, activation, gate, residual], backend, out)
