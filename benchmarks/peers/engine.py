"""This project: `effnet_fast.InferenceEngine` on the same model, from floats and from pixels."""

from __future__ import annotations

import torch
from torch import nn

import effnet_fast
from benchmarks.peers.images import in_turn
from benchmarks.peers.peer import Peer, Prepared
from effnet_fast import native


def _prepared(engine: effnet_fast.InferenceEngine, images: torch.Tensor) -> Prepared:
    engine.warmup()
    given = in_turn(images)
    details = {"backends": ", ".join(sorted(set(engine.backends.values()))), "isa": native.cpu_isa()}
    return Prepared(call=lambda: engine(given()), own_bytes=engine.memory.activation_bytes, details=details)


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    engine = effnet_fast.InferenceEngine(
        model, batch_size=images.shape[0], image_size=images.shape[-1], dtype=dtype, input="float"
    )
    return _prepared(engine, images.to(dtype=dtype, memory_format=torch.channels_last))


def prepare_pixels(model: nn.Module, pixels: torch.Tensor, dtype: torch.dtype) -> Prepared:
    engine = effnet_fast.InferenceEngine(
        model,
        batch_size=pixels.shape[0],
        image_size=tuple(pixels.shape[1:3]),
        dtype=dtype,
        input="uint8",
        layout="NHWC",
    )
    return _prepared(engine, pixels)


PEER = Peer("engine", "effnet_fast", "engine", prepare, {"backend": "auto", "input": "float"})
UINT8 = Peer(
    "engine-uint8",
    "effnet_fast uint8",
    "engine-uint8",
    prepare_pixels,
    {"backend": "auto", "input": "uint8", "layout": "NHWC"},
    images="uint8",
)
