"""Stock PyTorch, eager, with weights and images in channels_last: one line more, and often twice as fast on a
CPU.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.peers.peer import Peer, Prepared, inference_call


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    model = model.to(dtype=dtype, memory_format=torch.channels_last)
    images = images.to(dtype=dtype, memory_format=torch.channels_last)
    return Prepared(call=inference_call(model, images))


PEER = Peer("eager-nhwc", "eager NHWC", "eager", prepare, {"layout": "channels_last", "mode": "eager"})
