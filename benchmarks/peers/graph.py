"""Eager peers captured as CUDA graphs: all kernels of a call are one launch, and at small batches a GPU waits
for launches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.peers.peer import Peer, Prepared
from effnet_fast.measure import peak_allocated_bytes

#: Calls before the capture: libraries choose their kernels and allocate their workspaces in the first ones.
WARM_UP_CALLS = 3


def captured(
    call: Callable[[], torch.Tensor], device: torch.device, cuda: Any = torch.cuda
) -> tuple[Callable[[], torch.Tensor], int]:
    """`call` as a CUDA graph, and the bytes of activations that the graph keeps.

    Args:
        call: reads its images where they lie at every call, and returns the logits.
        device: that it runs on.
        cuda: `torch.cuda`; tests without a GPU give their own.

    Returns: a function that replays the graph and returns the graph's own logits, which the next replay
    overwrites; and the peak of what was allocated while `call` was captured.
    """
    side = cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        for _ in range(WARM_UP_CALLS):
            call()
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    logits: list[torch.Tensor] = []

    def capture() -> None:
        with cuda.graph(graph):
            logits.append(call())

    kept = peak_allocated_bytes(capture, device)

    def replay() -> torch.Tensor:
        graph.replay()
        return logits[0]

    # A graph knows addresses alone, hence one of the copies that `call` reads in turn: these peers may find
    # it in the L2, and are spared the copy that a new batch takes. Images and weights live as long as `call`.
    replay.call = call
    return replay, kept


def graph_peer(eager: Peer, *, name: str, label: str, cuda: Any = torch.cuda) -> Peer:
    """`eager` under a CUDA graph."""

    def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
        prepared = eager.prepare(model, images, dtype)
        replay, kept = captured(prepared.call, images.device, cuda)
        return Prepared(call=replay, own_bytes=kept, details=prepared.details)

    return replace(
        eager,
        name=name,
        label=label,
        group="graph",
        prepare=prepare,
        settings={**eager.settings, "mode": "eager, captured as a CUDA graph"},
        devices=("cuda",),
        elsewhere="CUDA graphs need a GPU",
    )
