"""Stock PyTorch as everybody first writes it: eager, NCHW, weights and images cast to the dtype."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.peers.peer import Peer, Prepared, inference_call


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    model = model.to(dtype)
    images = images.to(dtype)
    return Prepared(call=inference_call(model, images))


PEER = Peer("eager-nchw", "eager NCHW", "eager", prepare, {"layout": "NCHW", "mode": "eager"})
