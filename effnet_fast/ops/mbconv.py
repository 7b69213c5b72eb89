"""A whole mobile inverted bottleneck block."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def mbconv(
    x: Tensor,
    w_expand: Tensor | None,
    b_expand: Tensor | None,
    w_dw: Tensor,
    b_dw: Tensor | None,
    w1: Tensor | None,
    b1: Tensor | None,
    w2: Tensor | None,
    b2: Tensor | None,
    w_project: Tensor,
    b_project: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "silu",
    se_activation: str = "silu",
    gate: str = "sigmoid",
    residual: bool = False,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Expansion, depthwise convolution, squeeze-excite, projection and skip of one block.

    Batch norms are folded into the weights. EfficientNet's building block (arXiv:1905.11946, section 4;
    MobileNetV2, arXiv:1801.04381, section 3.3; MnasNet, arXiv:1807.11626, figure 7). In plain PyTorch::

        y = pointwise_conv(x, w_expand, b_expand, activation)               # where w_expand is given
        y, gates = depthwise_conv_gate(y, w_dw, b_dw, stride, padding, activation, w1=w1, b1=b1, w2=w2, b2=b2,
                                       se_activation=se_activation, gate=gate)
        y = pointwise_conv(y, w_project, b_project, gate=gates, residual=x if residual else None)

    Args:
        x: [N, C, H, W], as :func:`depthwise_conv`.
        w_expand, b_expand: [M, C, 1, 1] or [M, C], and [M]; None for a block without expansion (then M = C).
        w_dw, b_dw: [M, 1, k, k], k odd, and [M].
        w1, b1, w2, b2: squeeze-excite, [S, M, 1, 1], [S], [M, S, 1, 1], [M], float32 (float64 for float64);
            w1 and w2 None for a block without it.
        w_project, b_project: [Cout, M, 1, 1] or [Cout, M], and [Cout].
        stride, padding: of the depthwise convolution, as :func:`depthwise_conv`.
        activation: after expansion and depthwise convolution; the projection has none.
        se_activation, gate: as :func:`depthwise_conv_gate`.
        residual: add `x`; needs Cout = C and an output of the size of `x`.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, Cout, OH, OW] in channels_last memory, to write into; must not overlap an input.

    Convolution weights are in the dtype of `x`, biases in float32 or the dtype of `x`.

    Returns:
        [N, Cout, OH, OW] in channels_last memory, dtype of `x`. Maps between the convolutions are rounded to
        that dtype where a backend stores them, and may not be where it does not.

    Raises: as :func:`depthwise_conv`.
    """
    return call(
        "mbconv",
        [
            x, w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project,
            stride, four_sided(padding, w_dw), activation, se_activation, gate, residual,
        ],
        backend,
        out,
    )  # fmt: skip
