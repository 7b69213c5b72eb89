"""This project: `effnet_fast.InferenceEngine` on the same model, `backend="auto"`."""

from __future__ import annotations

import torch
from torch import nn

import effnet_fast
from benchmarks.peers.peer import Peer, Prepared
from effnet_fast import native


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    engine = effnet_fast.InferenceEngine(
        model, batch_size=images.shape[0], image_size=images.shape[-1], dtype=dtype, input="float"
    )
    images = images.to(dtype=dtype, memory_format=torch.channels_last)
    engine.warmup()
    details = {"backends": ", ".join(sorted(set(engine.backends.values()))), "isa": native.cpu_isa()}
    return Prepared(call=lambda: engine(images), own_bytes=engine.memory.arena_bytes, details=details)


PEER = Peer("engine", "effnet_fast", "engine", prepare, {"backend": "auto", "input": "float"})
