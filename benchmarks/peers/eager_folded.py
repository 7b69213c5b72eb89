"""Stock PyTorch, eager, channels_last, with every batch norm folded into its convolution (in float32, then
cast).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.peers.peer import Peer, Prepared, inference_call


def fold_batch_norms(model: nn.Module) -> int:
    """Fold, in place, the batch norm of every (conv, norm) pair of `model`; returns how many were folded."""
    folded = 0
    for module in model.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "norm", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            module.norm = nn.Identity()
            folded += 1
    return folded


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    folded = fold_batch_norms(model)
    model = model.to(dtype=dtype, memory_format=torch.channels_last)
    images = images.to(dtype=dtype, memory_format=torch.channels_last)
    return Prepared(call=inference_call(model, images), details={"folded": folded})


PEER = Peer(
    "eager-folded",
    "eager folded",
    "eager",
    prepare,
    {"layout": "channels_last", "mode": "eager", "batch_norm": "folded by torch.nn.utils.fusion"},
)
