"""First convolution of a network and the depthwise convolution behind it, down to its sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, call, four_sided
from .stem_conv import channel_constants, storage_dtype


def stem_block_sums(
    image: Tensor,
    w_stem: Tensor,
    b_stem: Tensor | None,
    w_dw: Tensor,
    b_dw: Tensor | None = None,
    stride: int = 2,
    padding: Padding = None,
    activation: str = "silu",
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """What the squeeze-excite of a network's first block needs, from pixels; no map is returned.

    The first half of EfficientNet's stem and first block (arXiv:1905.11946, table 1, stages 1 and 2), whose
    second half, :func:`stem_block`, computes the maps again: large batches are bound by memory there, and the
    two maps are its largest. In plain PyTorch::

        x = stem_conv(image, w_stem, b_stem, stride, padding, activation, mean, std, dtype)
        y, sums = depthwise_conv_pool(x, w_dw, b_dw, 1, None, activation)

    Args:
        image, stride, padding, mean, std, dtype: as :func:`stem_conv`; `stride` and `padding` are the stem's.
        w_stem, b_stem: [M, C, k, k], k odd, in `dtype`, and [M], float32 or `dtype`.
        w_dw, b_dw: [M, 1, d, d], d odd, in `dtype`, and [M]; stride 1, padded by d // 2 on every side.
        activation: after both convolutions, as :func:`depthwise_conv`.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, tiles, M] float32, to write into; must not overlap an input.

    Returns:
        [N, tiles, M] float32 (float64 for float64), tiles = ceil(OH / 16) * ceil(OW / 16): partial sums of
        the activated map over its pixels, before rounding; only their total over the tiles is specified.

    Raises: as :func:`depthwise_conv`.
    """
    dtype = storage_dtype(dtype, image, w_stem)
    mean, std = channel_constants(mean, image, dtype), channel_constants(std, image, dtype)
    return call(
        "stem_block_sums",
        [
            image, w_stem, b_stem, w_dw, b_dw, stride, four_sided(padding, w_stem), activation, mean, std,
            dtype,
        ],
        backend,
        out,
    )  # fmt: skip
