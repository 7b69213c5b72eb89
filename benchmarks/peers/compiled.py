"""torch.compile at its best on a CPU: weights frozen into the graph, channels_last, memory kept.

Freezing folds the batch norms and packs the weights for oneDNN; without it the compiled model is up to 1.6
times slower. max-autotune is
left out: on this network only the classifier goes through its templates.
"""

from __future__ import annotations

import shutil

import torch
from torch import nn

from benchmarks.peers.peer import KEEP_MEMORY, Peer, Prepared


def unavailable() -> str:
    if torch.version.hip is None and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        return "torch.compile needs a C++ compiler and there is none"
    return ""


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    import torch._inductor.config as inductor_config

    model = model.to(dtype=dtype, memory_format=torch.channels_last)
    images = images.to(dtype=dtype, memory_format=torch.channels_last)
    torch.compiler.reset()
    inductor_config.freezing = True  # global: one reason why every peer has its own process
    compiled = torch.compile(model, dynamic=False, fullgraph=True)

    def call() -> torch.Tensor:
        with torch.no_grad():
            return compiled(images)

    call()
    return Prepared(call=call)


PEER = Peer(
    "compiled",
    "torch.compile",
    "compiled",
    prepare,
    {
        "layout": "channels_last",
        "mode": "torch.compile(dynamic=False), inductor",
        "freezing": True,
        "allocator": "glibc, keeping freed memory",
    },
    environment=KEEP_MEMORY,
    unavailable=unavailable,
    slow_start=True,
)
