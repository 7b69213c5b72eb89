"""A whole fused mobile inverted bottleneck block."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided


def fused_mbconv(
    x: Tensor,
    w_expand: Tensor,
    b_expand: Tensor | None,
    w_project: Tensor,
    b_project: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "silu",
    residual: bool = False,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Dense k x k expansion, projection and skip of one FusedMBConv block, without squeeze-excite.

    Batch norms are folded into the weights. EfficientNetV2's early block (arXiv:2104.00298, section 3.2), in
    which a dense convolution replaces MBConv's expansion and depthwise convolution. In plain PyTorch::

        y = dense_conv(x, w_expand, b_expand, stride, padding, activation)
        y = pointwise_conv(y, w_project, b_project, residual=x if residual else None)

    Args:
        x: [N, C, H, W], as :func:`depthwise_conv`.
        w_expand, b_expand: [M, C, k, k], k odd, and [M].
        w_project, b_project: [Cout, M, 1, 1] or [Cout, M], and [Cout].
        stride, padding: of the k x k convolution, as :func:`depthwise_conv`.
        activation: after the k x k convolution; the projection has none.
        residual: add `x`; needs Cout = C and an output of the size of `x`.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, Cout, OH, OW] in channels_last memory, to write into; must not overlap an input.

    Weights are in the dtype of `x`, biases in float32 or the dtype of `x`.

    Returns:
        [N, Cout, OH, OW] in channels_last memory, dtype of `x`. The map between the convolutions is rounded
        to that dtype where a backend stores it, and may not be where it does not.

    Raises: as :func:`depthwise_conv`.
    """
    return call(
        "fused_mbconv",
        [
            x, w_expand, b_expand, w_project, b_project,
            stride, four_sided(padding, w_expand), activation, residual,
        ],
        backend,
        out,
    )  # fmt: skip
