"""Depthwise convolution together with the squeeze-excite gate of its result."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def depthwise_conv_gate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "identity",
    *,
    w1: Tensor,
    b1: Tensor | None = None,
    w2: Tensor,
    b2: Tensor | None = None,
    se_activation: str = "silu",
    gate: str = "sigmoid",
    backend: str | Backend = "auto",
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`depthwise_conv_pool` followed by :func:`squeeze_excite_gate`.

    The middle of an MBConv block; the multiplication by the gate is left to :func:`pointwise_conv`, which
    reads the map next. Squeeze-and-excitation: arXiv:1709.01507, section 3. In plain PyTorch::

        y = depthwise_conv(x, weight, bias, stride, padding, activation)
        mean = y.mean((2, 3), keepdim=True)                 # of the float32 values, before y is rounded
        gates = torch.sigmoid(F.conv2d(F.silu(F.conv2d(mean, w1, b1)), w2, b2)).flatten(1)

    Args:
        x, weight, bias, stride, padding, activation, backend: as :func:`depthwise_conv`.
        w1, b1: [S, C, 1, 1] or [S, C], and [S]; float32 (float64 for float64).
        w2, b2: [C, S, 1, 1] or [C, S], and [C]; float32.
        se_activation: between the two layers. gate: sigmoid or hardsigmoid.
        out: (y, gates).

    Returns:
        y: [N, C, OH, OW] in channels_last memory, dtype of `x`. gates: [N, C] float32 (float64 for float64).

    Raises: as :func:`depthwise_conv`.
    """
    return call(
        "depthwise_conv_gate",
        [
            x,
            weight,
            bias,
            stride,
            four_sided(padding, weight),
            activation,
            w1,
            b1,
            w2,
            b2,
            se_activation,
            gate,
        ],
        backend,
        out,
    )
