"""GPUs by their data sheets: what predictions start from where there is no GPU to measure.

Nothing here is measured. Rates a clock are those of a multiprocessor; where a data sheet gives operations a
second, they are divided by its boost clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CHIPS", "Chip", "find_chip"]


@dataclass(frozen=True)
class Chip:
    """One kind of GPU.

    Attributes:
        name: as the driver says it.
        capability: 10 * major + minor of its compute capability (90 for Hopper); 0 for other makers.
        multiprocessors: on the chip.
        clock: boost clock, in Hz.
        memory_bytes: bytes a second, read or written, by the data sheet.
        cache_size: bytes of the L2 cache.
        tensor_macs: dense 16-bit multiply-adds with float32 sums, a clock.
        shared_bytes: shared memory of a multiprocessor.
        source: where the numbers are from.
    """

    name: str
    capability: int
    multiprocessors: int
    clock: float
    memory_bytes: float
    cache_size: int
    tensor_macs: int
    shared_bytes: int
    source: str


_HOPPER = (
    "NVIDIA H100 Tensor Core GPU Architecture (white paper): 132 multiprocessors, 989.4 TFLOPS at 1.83 GHz"
)

#: By the names that `find_chip` takes. Shared memory: CUDA C++ Programming Guide, technical specifications
#: per compute capability.
CHIPS = {
    "h200": Chip(
        "NVIDIA H200", 90, 132, 1.83e9, 4.8e12, 50 << 20, 2048, 228 << 10,
        f"NVIDIA H200 data sheet (4.8 TB/s); chip: {_HOPPER}",
    ),
    "h100": Chip("NVIDIA H100 80GB HBM3", 90, 132, 1.83e9, 3.35e12, 50 << 20, 2048, 228 << 10, _HOPPER),
    "a100": Chip(
        "NVIDIA A100-SXM4-80GB", 80, 108, 1.41e9, 2.039e12, 40 << 20, 1024, 164 << 10,
        "NVIDIA A100 80GB data sheet (2039 GB/s, 312 TFLOPS); NVIDIA A100 Tensor Core GPU Architecture",
    ),
    "l4": Chip(
        "NVIDIA L4", 89, 58, 2.04e9, 3.0e11, 48 << 20, 512, 100 << 10,
        "NVIDIA L4 data sheet (300 GB/s, 121 TFLOPS); NVIDIA Ada GPU Architecture (white paper), appendix",
    ),
    "rtx4090": Chip(
        "NVIDIA GeForce RTX 4090", 89, 128, 2.52e9, 1.008e12, 72 << 20, 256, 100 << 10,
        "NVIDIA Ada GPU Architecture (white paper), appendix A: 165.2 TFLOPS with float32 sums",
    ),
    "rtx3090": Chip(
        "NVIDIA GeForce RTX 3090", 86, 82, 1.695e9, 9.36e11, 6 << 20, 256, 100 << 10,
        "NVIDIA Ampere GA102 GPU Architecture (white paper), appendix A: 71 TFLOPS with float32 sums",
    ),
}  # fmt: skip


def find_chip(name: str) -> Chip:
    """The chip called `name`, in any spelling: "H200", "RTX 4090", "rtx-4090".

    Raises: ValueError, naming the chips there are.
    """
    chip = CHIPS.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    if chip is None:
        raise ValueError(f"chip must be one of {', '.join(CHIPS)}, got {name!r}")
    return chip
