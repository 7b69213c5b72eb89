"""Which backend runs each operator of an engine, and whether its batches are replayed as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch

from effnet_fast import backends as backend_choice
from effnet_fast.backends import Backend
from effnet_fast.inference.layers import Layer

__all__ = ["resolve_backends", "resolve_graphs"]

_logger = logging.getLogger("effnet_fast")
_logged: set[tuple[str, str]] = set()


def resolve_backends(
    layers: Sequence[Layer], backend: str | Backend, dtype: torch.dtype, device: torch.device
) -> Mapping[str, Backend]:
    """{operator: backend} of every operator in `layers`; logs once where "auto" has only the reference."""
    resolved = {
        operator: backend_choice.resolve(operator, backend, device_type=device.type, dtype=dtype)
        for operator in dict.fromkeys(layer.operator for layer in layers)
    }
    floor = sorted(operator for operator, chosen in resolved.items() if chosen is Backend.REFERENCE)
    if floor and backend_choice.parse_backend(backend) is Backend.AUTO:
        key = (device.type, ",".join(floor))
        if key not in _logged:
            _logged.add(key)
            _logger.warning(
                "engine on %s: the plain PyTorch reference runs %s", device.type, ", ".join(floor)
            )
    return resolved


def resolve_graphs(cuda_graph: bool | str, device: torch.device, backends: Mapping[str, Backend]) -> bool:
    """Whether graphs are captured: on CUDA, where every layer is a kernel of ours, unless they are declined.

    The reference is left out: PyTorch's own kernels allocate, and may choose others while they are captured.
    """
    if cuda_graph not in (True, False, "auto"):
        raise ValueError(f'cuda_graph must be "auto", True or False, got {cuda_graph!r}')
    if cuda_graph is False:
        return False
    native = all(backend in (Backend.CUDA, Backend.TRITON) for backend in backends.values())
    if device.type == "cuda" and native:
        return True
    if cuda_graph is True:
        raise RuntimeError(
            f"cuda_graph=True needs kernels of the cuda or triton backend on a CUDA device, got "
            f'{", ".join(sorted({str(b) for b in backends.values()}))} on {device}: use "auto"'
        )
    return False
