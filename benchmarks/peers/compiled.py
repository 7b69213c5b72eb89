"""torch.compile at its best: weights frozen into the graph, channels_last.

Freezing folds the batch norms and packs the weights; without it the compiled model is up to 1.6 times slower
on a CPU (`DEFAULT`: the call as most people write it). There the allocator keeps its memory, too (`PLAIN`: as
it comes, which is what most people have and less than half as fast at batch 16), and the other modes are left
out: of this network only the classifier goes through max-autotune's templates, and reduce-overhead is about
CUDA graphs. On a GPU the batch norms are folded before, in float32: folded in 16 bits they cost accuracy that
the gate would charge to the compiler.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.peers.images import in_turn
from benchmarks.peers.peer import KEEP_MEMORY, Peer, Prepared

#: Calls until a compiled function is what it will be: with CUDA graphs the first compiles and warms up, the
#: second records, the third replays.
FIRST_CALLS = {None: 1, "max-autotune": 3, "reduce-overhead": 3}


def missing(device: str, model: str) -> str:
    if torch.version.hip is None and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        return "torch.compile needs a C++ compiler and there is none"
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile on a GPU needs Triton, which is not installed"
    return ""


def _preparing(
    mode: str | None, freezing: bool
) -> Callable[[nn.Module, torch.Tensor, torch.dtype], Prepared]:
    def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
        import torch._inductor.config as inductor_config

        if images.device.type == "cuda" and freezing:
            fold_batch_norms(model)
        model = model.to(dtype=dtype, memory_format=torch.channels_last)
        images = images.to(dtype=dtype, memory_format=torch.channels_last)
        torch.compiler.reset()
        inductor_config.freezing = freezing  # global: one reason why every peer has its own process
        compiled = torch.compile(model, dynamic=False, fullgraph=True, mode=mode)

        given = in_turn(images)

        def call() -> torch.Tensor:
            with torch.no_grad():
                return compiled(given())

        for _ in range(FIRST_CALLS[mode]):
            call()
        # The pools of the compiler's CUDA graphs show in no counter of PyTorch's.
        return Prepared(call=call, own_bytes=0 if mode is None else None)

    return prepare


def _peer(
    name: str,
    label: str,
    mode: str | None,
    *,
    group: str = "compiled",
    tuned: bool = True,
    freezing: bool = True,
    **more: object,
) -> Peer:
    described = "torch.compile(dynamic=False), inductor"
    return Peer(
        name,
        label,
        group,
        _preparing(mode, freezing),
        {
            "layout": "channels_last",
            "mode": described if mode is None else f"{described}, {mode}",
            "freezing": freezing,
            "allocator": "glibc, keeping freed memory" if tuned else "glibc, as it comes",
        },
        environment=KEEP_MEMORY if tuned else {},
        missing=missing,
        slow_start=True,
        **more,
    )


PEER = _peer("compiled", "torch.compile", None)
DEFAULT = _peer("compiled-default", "torch.compile default", None, tuned=False, freezing=False)
PLAIN = _peer(
    "compiled-plain",
    "torch.compile plain",
    None,
    group="plain",
    tuned=False,
    devices=("cpu",),
    elsewhere="PyTorch's allocator on a GPU keeps its memory anyway: this is compiled",
)
AUTOTUNE = _peer(
    "compiled-autotune",
    "torch.compile max-autotune",
    "max-autotune",
    devices=("cuda",),
    elsewhere="on a CPU max-autotune has templates for the classifier alone",
)
GRAPHS = _peer(
    "compiled-graphs",
    "torch.compile reduce-overhead",
    "reduce-overhead",
    devices=("cuda",),
    elsewhere="reduce-overhead is about CUDA graphs, which need a GPU",
)
