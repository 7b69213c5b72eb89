"""First convolution and first block of a network, from pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided
from .stem_conv import channel_constants, storage_dtype


def stem_block(
    image: Tensor,
    w_stem: Tensor,
    b_stem: Tensor | None,
    w_dw: Tensor,
    b_dw: Tensor | None,
    w_project: Tensor,
    b_project: Tensor | None = None,
    stride: int = 2,
    padding: Padding = None,
    activation: str = "silu",
    gate: Tensor | None = None,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Stem, depthwise convolution, gate and projection: the first block of a network without an expansion.

    EfficientNet's stem and first block (arXiv:1905.11946, table 1, stages 1 and 2) but for the
    squeeze-excite, whose gates come from :func:`stem_block_sums` and :func:`squeeze_excite_gate`. In plain
    PyTorch::

        x = stem_conv(image, w_stem, b_stem, stride, padding, activation, mean, std, dtype)
        y = depthwise_conv(x, w_dw, b_dw, 1, None, activation)
        y = pointwise_conv(y, w_project, b_project, gate=gate)

    Args:
        image, stride, padding, mean, std, dtype: as :func:`stem_conv`; `stride` and `padding` are the stem's.
        w_stem, b_stem: [M, C, k, k], k odd, in `dtype`, and [M], float32 or `dtype`.
        w_dw, b_dw: [M, 1, d, d], d odd, in `dtype`, and [M]; stride 1, padded by d // 2 on every side.
        w_project, b_project: [Cout, M, 1, 1] or [Cout, M], in `dtype`, and [Cout].
        activation: after stem and depthwise convolution; the projection has none.
        gate: [N, M] float32 (float64 for float64), or None for a block without squeeze-excite.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, Cout, OH, OW] in channels_last memory, to write into; must not overlap an input.

    Returns:
        [N, Cout, OH, OW] in channels_last memory, in `dtype`. Maps between the convolutions are rounded to
        that dtype where a backend stores them, and may not be where it does not.

    Raises: as :func:`depthwise_conv`.
    """
    dtype = storage_dtype(dtype, image, w_stem)
    mean, std = channel_constants(mean, image, dtype), channel_constants(std, image, dtype)
    return call(
        "stem_block",
        [
            image, w_stem, b_stem, w_dw, b_dw, w_project, b_project, stride, four_sided(padding, w_stem),
            activation, gate, mean, std, dtype,
        ],
        backend,
        out,
    )  # fmt: skip
