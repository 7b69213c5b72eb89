"""The dtype that a block computes in and the one it gives, in eager PyTorch, with or without autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effnet_fast.fusion.spec import Block, SqueezeExcite

__all__ = ["STORAGE", "result_dtype", "storage_dtype"]

#: What our operators store maps in.
STORAGE = (torch.float32, torch.float16, torch.bfloat16)


def storage_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The dtype of maps: autocast's, or that of x and weight; None for a mixture, float64 and meta."""
    kind = x.device.type
    if kind == "meta":  # autocast does not know it
        return None
    if torch.is_autocast_enabled(kind) and x.dtype in STORAGE and weight.dtype in STORAGE:
        dtype = torch.get_autocast_dtype(kind)
    elif x.dtype == weight.dtype:
        dtype = x.dtype
    else:
        return None
    return dtype if dtype in STORAGE else None


def result_dtype(block: Block, maps: torch.dtype, given: torch.dtype) -> torch.dtype | None:
    """The dtype of what the block's own modules give for an input of dtype `given`.

    `maps` is the dtype that they convolve in, autocast's. What is no convolution takes part in PyTorch's type
    promotion. None where the block starts with that, in another dtype than `maps`: the first thing that our
    operators do is to store the input in `maps`.
    """
    if isinstance(block.parts[0], SqueezeExcite) and given != maps:
        return None
    dtype = maps
    for part in block.parts:
        if isinstance(part, SqueezeExcite):
            continue
        dtype = maps
        # A frozen batch norm is written as a product and a sum; others convert nothing.
        if part.norm is not None and not isinstance(part.norm, nn.modules.batchnorm._BatchNorm):
            dtype = torch.promote_types(dtype, part.norm.running_var.dtype)
        if part.scale is not None:
            dtype = torch.promote_types(dtype, part.scale.gamma.dtype)
    return torch.promote_types(dtype, given) if block.residual else dtype
