"""What a peer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmarks.peers.images import in_turn

#: Tells glibc to keep freed memory for the next activation. By default it gives blocks of this size back to
#: the system and gets them anew, zeroed page by page, at every call: half the time of an eager batch of 16.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


class PeerUnavailable(RuntimeError):
    """Raised by `Peer.prepare` where only trying shows that the peer cannot run this case: it has no kernel
    for the dtype, say. The message, a sentence, is shown in the place of a time.
    """


@dataclass(frozen=True)
class Prepared:
    """A peer made ready for one case.

    `call()` returns the logits [N, classes] of the images it was prepared with, which it reads `in_turn`.
    `own_bytes` is what the peer keeps for activations between calls (a planned arena, a graph's pool), which
    no allocation during a call shows; None where it keeps memory and nobody tells how much.
    """

    call: Callable[[], torch.Tensor]
    own_bytes: int | None = 0
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One way of running the network.

    Args:
        name: as typed after `--peers`.
        label: as shown in tables and plots.
        group: "eager", "tuned", "graph", "plain", "compiled", "runtime", "engine" or "engine-uint8";
            ratios are against the best of a group.
        prepare: (model, images, dtype) -> Prepared. The model is stock PyTorch, float32, in eval mode, and
            the peer's own to change; images are [N, 3, H, W] float32, contiguous, or what `images` says.
            Both are on the device that is measured. Raises `PeerUnavailable`.
        settings: what a reader needs to know to repeat it; stored in the result file.
        environment: variables that its process is started with.
        devices: those that it applies to.
        elsewhere: a sentence saying why it does not apply to other devices.
        missing: (device, model) -> a sentence saying what it lacks here, empty where it can run.
        slow_start: preparing takes tens of seconds (the default sweep then gives it one variant only).
        images: "float", or "uint8": pixels [N, H, W, 3] that the peer normalises itself.
    """

    name: str
    label: str
    group: str
    prepare: Callable[[nn.Module, torch.Tensor, torch.dtype], Prepared]
    settings: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")
    elsewhere: str = ""
    missing: Callable[[str, str], str] = lambda device, model: ""
    slow_start: bool = False
    images: str = "float"

    def unavailable(self, device: str, model: str) -> str:
        """Why it cannot run `model` on `device`, in a sentence; empty where it can."""
        return self.missing(device, model) if device in self.devices else self.elsewhere


def inference_call(model: nn.Module, images: torch.Tensor) -> Callable[[], torch.Tensor]:
    """`model(images)` without autograd's bookkeeping, which every eager peer is entitled to be spared."""
    given = in_turn(images)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(given())

    return call
