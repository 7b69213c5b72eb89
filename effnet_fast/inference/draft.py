"""An engine on paper: which blocks are fused, which operators run, what memory they take.

`InferenceEngine` is built from it; `effnet_fast.scaling` asks it what networks that are not built would take.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from effnet_fast import backends as backend_choice
from effnet_fast.backends import Backend
from effnet_fast.inference.cost import choose_fused_blocks
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.layers import Layer, network_layers
from effnet_fast.inference.limits import CpuLimits
from effnet_fast.inference.packing import packed_bytes
from effnet_fast.inference.planner import Plan, plan_network
from effnet_fast.measure.ceilings import measure_ceilings

__all__ = ["Draft", "draft"]


@dataclass(frozen=True)
class Draft:
    """What an engine for one network, image size, dtype and device will do.

    Attributes:
        layers: its operators, in order.
        fused: names of the blocks whose expansion the depthwise kernel computes.
        dtype, image_dtype: of maps and images.
        device: where it runs.
        weight_bytes: of its weights; packing adds padding, a few per cent.
    """

    layers: tuple[Layer, ...]
    fused: frozenset[str]
    dtype: torch.dtype
    image_dtype: torch.dtype
    device: torch.device
    weight_bytes: int

    def plan(self, batch: int) -> Plan:
        """Passes and memory for up to `batch` images, for this machine's caches and threads."""
        limits = CpuLimits.detect() if self.device.type == "cpu" else None
        return plan_network(
            self.layers,
            batch=batch,
            dtype=self.dtype,
            image_dtype=self.image_dtype,
            threads=limits.threads if limits else 1,
            # The rule is about the caches of a CPU; elsewhere a whole batch fills the device better.
            budget_bytes=limits.budget_bytes if limits else None,
        )

    def needed_bytes(self, batch: int) -> int:
        """Activations and weights of an engine for `batch` images."""
        return self.plan(batch).arena_bytes + self.weight_bytes


def draft(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    batch: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    device: torch.device,
    backend: str | Backend = "auto",
) -> Draft:
    """The draft of an engine; `network` may be on the meta device.

    Which blocks are fused is the cost model's choice, from ceilings that are measured once in a process.

    Raises: RuntimeError for a backend asked for by name that cannot serve.
    """
    fused = _fused_blocks(network, image_size, batch, dtype, image_dtype, device, backend)
    return Draft(
        layers=network_layers(network, image_size, fuse_expansion=fused),
        fused=fused,
        dtype=dtype,
        image_dtype=image_dtype,
        device=device,
        weight_bytes=packed_bytes(network, dtype, fuse_expansion=fused),
    )


def _fused_blocks(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    batch: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    device: torch.device,
    backend: str | Backend,
) -> frozenset[str]:
    chosen = backend_choice.resolve("expand_depthwise", backend, device_type=device.type, dtype=dtype)
    # A composition writes the expanded tensor all the same, so only a kernel is worth it.
    native = chosen is not Backend.REFERENCE
    if not (native and backend_choice.has_kernel("expand_depthwise_into", chosen)):
        return frozenset()
    return choose_fused_blocks(
        network,
        image_size,
        # On a CPU neither batch size nor threads count: engines that differ in them give the same bits.
        images=1 if device.type == "cpu" else batch,
        dtype=dtype,
        image_dtype=image_dtype,
        ceilings=measure_ceilings(device, dtype),
    )
