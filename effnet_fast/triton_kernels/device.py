"""What a configuration may depend on: the facts of one GPU, as plain numbers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from effnet_fast import native


@dataclass(frozen=True)
class Device:
    """One kind of GPU.

    Attributes:
        name: as the driver says it; names the file of tuned configurations.
        platform: ``"cuda"``, ``"hip"``, or ``"interpreter"`` for Triton's own on a CPU.
        capability: 10 * major + minor of an NVIDIA GPU (90 for Hopper); 0 elsewhere.
        multiprocessors: how many blocks of threads run side by side at least.
        shared_bytes: shared memory that one block may have.
    """

    name: str
    platform: str
    capability: int
    multiprocessors: int
    shared_bytes: int

    @property
    def has_tanh(self) -> bool:
        """tanh in one instruction: NVIDIA's from sm_75; the interpreter cannot run it."""
        return self.platform == "cuda" and self.capability >= 75


#: Small blocks, as a GPU with little shared memory would get them.
INTERPRETER = Device("interpreter", "interpreter", 0, 4, 64 << 10)

#: Compute capability -> a GPU of that kind, for compiling without one. Shared memory per block: CUDA C++
#: Programming Guide, technical specifications per compute capability.
ARCHITECTURES = {
    80: Device("sm_80", "cuda", 80, 108, 163 << 10),
    86: Device("sm_86", "cuda", 86, 84, 99 << 10),
    89: Device("sm_89", "cuda", 89, 128, 99 << 10),
    90: Device("sm_90", "cuda", 90, 132, 227 << 10),
    100: Device("sm_100", "cuda", 100, 148, 227 << 10),
    120: Device("sm_120", "cuda", 120, 170, 99 << 10),
}


@functools.cache
def of(device: torch.device) -> Device:
    """The facts of `device`, asked of the driver once."""
    if native.INTERPRETS_TRITON:
        return INTERPRETER
    properties = torch.cuda.get_device_properties(device)
    hip = torch.version.hip is not None
    return Device(
        name=properties.name,
        platform="hip" if hip else "cuda",
        capability=0 if hip else 10 * properties.major + properties.minor,
        multiprocessors=properties.multi_processor_count,
        shared_bytes=getattr(properties, "shared_memory_per_block_optin", 64 << 10),
    )
