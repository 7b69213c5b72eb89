"""The stages of a streamed batch, on a CPU and on a GPU: bring images in, compute, bring logits out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from effnet_fast.inference.engine import InferenceEngine

__all__ = ["Transfers", "transfers_of"]


class Transfers(Protocol):
    """The three stages of an item. Each is called from one thread only, in the order of the items."""

    def upload(self, images: Any) -> Any:
        """Begin to bring `images` to the engine's device (reader thread); raises as the engine does."""

    def compute(self, uploaded: Any) -> Any:
        """Begin to compute the logits of what `upload` gave (runner thread)."""

    def fetch(self, computed: Any) -> Tensor:
        """Wait for the logits: float32 [N, classes] in CPU memory (consumer's thread)."""


def transfers_of(engine: InferenceEngine) -> Transfers:
    """The stages that fit the engine's device."""
    return CudaTransfers(engine) if torch.device(engine.device).type == "cuda" else HostTransfers(engine)


class HostTransfers:
    """An engine in CPU memory: nothing to copy."""

    def __init__(self, engine: InferenceEngine):
        self._engine = engine

    def upload(self, images: Any) -> Any:
        return images

    def compute(self, images: Any) -> Tensor:
        return self._engine(images)

    def fetch(self, logits: Tensor) -> Tensor:
        return logits.cpu()


@dataclass
class _OnItsWay:
    """A tensor that is right once `ready` has happened."""

    tensor: Tensor
    ready: torch.cuda.Event


class CudaTransfers:
    """An engine on a GPU: copies in, kernels and copies out on three CUDA streams, ordered by events.

    Memory is PyTorch's own: its allocators reuse a block, pinned or on the device, only when every stream
    that was announced to them (`record_stream`; a copy announces its pinned side itself) is done with it.
    """

    def __init__(self, engine: InferenceEngine):
        self._engine = engine
        self._device = torch.device(engine.device)
        self._up, self._run, self._down = (torch.cuda.Stream(self._device) for _ in range(3))

    def upload(self, images: Any) -> _OnItsWay:
        self._engine.check(images)
        if images.device.type != "cpu":
            # Written on the stream that is current in this thread, whatever device it belongs to.
            return _OnItsWay(images, torch.cuda.current_stream(images.device).record_event())
        with torch.cuda.stream(self._up):
            # From pageable memory the driver would copy in small pieces while the reader waits.
            host = images if images.is_pinned() else pinned_copy(images)
            return _OnItsWay(host.to(self._device, non_blocking=True), self._up.record_event())

    def compute(self, images: _OnItsWay) -> _OnItsWay:
        self._run.wait_event(images.ready)
        with torch.cuda.stream(self._run):
            images.tensor.record_stream(self._run)
            logits = self._engine(images.tensor)
            computed = self._run.record_event()
        self._down.wait_event(computed)
        with torch.cuda.stream(self._down):
            host = logits.to("cpu", non_blocking=True)  # into pinned memory
            logits.record_stream(self._down)
            # Blocking: a thread that waits for the GPU leaves its core to those that decode images.
            return _OnItsWay(host, self._down.record_event(torch.cuda.Event(blocking=True)))

    def fetch(self, logits: _OnItsWay) -> Tensor:
        logits.ready.synchronize()
        # Callers collect results, and locked memory is scarce: the pinned block goes back to its pool.
        return logits.tensor.clone()


@torch.no_grad()
def pinned_copy(images: Tensor) -> Tensor:
    """`images` in page-locked memory; dense strides are kept, others (slices, expanded images) made dense."""
    return torch.empty_like(images, pin_memory=True).copy_(images)
