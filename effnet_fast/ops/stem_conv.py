"""First convolution of a network, from pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import Padding, autocast_dtype, call, four_sided
from .geometry import single_dtype


def channel_constants(
    values: Tensor | Sequence[float] | None, image: Tensor, dtype: torch.dtype | None
) -> Tensor | None:
    """`mean` or `std` as a tensor beside `image`, for a call in `dtype`."""
    if values is None or isinstance(values, Tensor) or not isinstance(image, Tensor):
        return values
    return torch.tensor(values, dtype=single_dtype(dtype), device=image.device)


def storage_dtype(dtype: torch.dtype | None, image: Tensor, weight: Tensor) -> torch.dtype | None:
    """`dtype`, or what stands for None: autocast's, or that of `weight`."""
    if dtype is None and isinstance(weight, Tensor):
        return weight.dtype if weight.dtype == torch.float64 else autocast_dtype(image) or weight.dtype
    return dtype


def stem_conv(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = None,
    activation: str = "identity",
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """``activation(normalise(image) * weight + bias)``, where ``*`` is a strided, padded correlation.

    The stem of EfficientNet (arXiv:1905.11946, table 1, stage 1) together with the preprocessing in front of
    it. In plain PyTorch::

        v = image.float() / 255                             # a uint8 image; a float image is taken as it is
        v = ((v - mean[:, None, None]) / std[:, None, None]).to(dtype)
        v = F.pad(v, (left, right, top, bottom))            # zero after normalisation, never a raw 0
        y = F.silu(F.conv2d(v, weight, bias, stride))       # activation="silu"

    Args:
        image: [N, C, H, W], any strides (a contiguous NHWC batch as ``image.permute(0, 3, 1, 2)``); uint8,
            float32 or `dtype`.
        weight: [Cout, C, k, k], k odd, in `dtype`. bias: [Cout], float32 or `dtype`.
        stride, padding, activation, backend: as :func:`depthwise_conv`.
        mean, std: [C] float32 (float64 with a float64 `dtype`), or numbers; None is 0 and 1. In the image's
            unit for a float image, in 0..1 for a uint8 one.
        dtype: of the products and of the result; default: the dtype of `weight` (under autocast, autocast's).
        out: [N, Cout, OH, OW] in channels_last memory, to write into; must not overlap an input.

    Returns:
        [N, Cout, OH, OW] in channels_last memory, in `dtype`, rounded once from float32.

    Raises: as :func:`depthwise_conv`.
    """
    dtype = storage_dtype(dtype, image, weight)
    mean, std = channel_constants(mean, image, dtype), channel_constants(std, image, dtype)
    return call(
        "stem_conv",
        [image, weight, bias, stride, four_sided(padding, weight), activation, mean, std, dtype],
        backend,
        out,
    )
