"""What each unit of a GPU does in a second: measured on the one at hand, or nominal, by its data sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from effnet_fast.measure.ceilings import Ceilings, measure_ceilings
from effnet_fast.measure.chips import Chip

__all__ = ["GpuRates", "chip_of", "measured_rates", "nominal_rates", "rates_from"]

# A clock of a multiprocessor. Float32 multiply-adds are 64 on an A100 and 128 on GeForce and Hopper, special
# functions 16 on all: CUDA C++ Programming Guide, "Throughput of native arithmetic instructions". Four
# schedulers start an instruction of 32 threads each; shared memory has 32 banks of 4 bytes.
_FMA_PER_CLOCK = {80: 64}
_MOST_FMA_PER_CLOCK = 128
_SPECIAL_PER_CLOCK = 16
_ISSUE_PER_CLOCK = 4 * 32
_SHARED_PER_CLOCK = 128

# The L2 cache, bytes a clock and multiprocessor: 5.5 TB/s of an H100-class chip. Assumed.
_CACHE_PER_CLOCK = 24

# What a copy reaches of the memory bandwidth in a data sheet: 4.3 of 4.8 TB/s on an H200.
_COPY = 0.9

# `mma.sync` reaches 0.62 of Hopper's tensor cores, whose whole rate takes wgmma; older ones and GeForce reach
# all of it. A product of PyTorch's reaches 0.80 of Hopper's (790 of 989 TFLOPS). Published figures, not
# measured here.
_MMA_SYNC = {90: 0.62}
_PRODUCT = {90: 0.80}

# Seconds from one kernel of a replayed graph to the next: with dependent launch (from 9.0 on), without.
# Assumed.
_DEPENDENT_GAP, _GAP = 1.2e-6, 2.0e-6


@dataclass(frozen=True)
class GpuRates:
    """Rates of a whole GPU for maps of one 16-bit dtype, or of float32.

    Attributes:
        name: of the GPU.
        measured: whether memory, tensor cores and launches were measured on it; else all is nominal.
        multiprocessors: that share the work.
        shared_capacity: bytes of shared memory of one multiprocessor.
        memory_bytes: bytes a second of a copy within its memory, read and written.
        cache_bytes: bytes a second of the L2 cache.
        cache_size: bytes of the L2 cache.
        tensor_macs: multiply-adds a second by `mma.sync`, 16-bit operands and float32 sums.
        fma: float32 multiply-adds a second.
        special: tanh, exponentials and reciprocals a second.
        issue: instructions a second, each of 32 threads counted as 32.
        shared_bytes: bytes a second of all shared memories.
        launch_seconds: from one kernel of a graph to the next.
    """

    name: str
    measured: bool
    multiprocessors: int
    shared_capacity: int
    memory_bytes: float
    cache_bytes: float
    cache_size: float
    tensor_macs: float
    fma: float
    special: float
    issue: float
    shared_bytes: float
    launch_seconds: float

    @property
    def origin(self) -> str:
        """How its numbers are known, in words."""
        if self.measured:
            return "memory, tensor cores and launches measured in this process; the rest by the clock"
        return "nominal: rates of data sheets, nothing measured"


def nominal_rates(chip: Chip) -> GpuRates:
    """The rates of `chip`, none of them measured."""
    clocks = chip.multiprocessors * chip.clock
    memory = _COPY * chip.memory_bytes
    return GpuRates(
        name=chip.name,
        measured=False,
        memory_bytes=memory,
        cache_bytes=max(memory, clocks * _CACHE_PER_CLOCK),
        cache_size=chip.cache_size,
        tensor_macs=clocks * chip.tensor_macs * _MMA_SYNC.get(chip.capability, 1.0),
        launch_seconds=_gap(chip),
        **_by_clock(chip),
    )


def rates_from(ceilings: Ceilings, chip: Chip) -> GpuRates:
    """The rates of a `chip` whose `ceilings` were measured.

    Engines replay graphs, so that a kernel costs the gap to the one before it, and never more than a launch
    was measured to take. Special functions, instructions and shared memory are of the clock.
    """
    share = _MMA_SYNC.get(chip.capability, 1.0) / _PRODUCT.get(chip.capability, 1.0)
    return GpuRates(
        name=chip.name,
        measured=True,
        memory_bytes=ceilings.memory_bytes,
        cache_bytes=max(ceilings.cache_bytes, ceilings.memory_bytes),
        cache_size=ceilings.cache_size,
        tensor_macs=share * ceilings.matrix_macs,
        launch_seconds=min(ceilings.launch_seconds, _gap(chip)),
        **_by_clock(chip),
    )


def measured_rates(device: torch.device | str, dtype: torch.dtype) -> GpuRates:
    """The rates of the CUDA `device` for maps of `dtype`, measured once in a process.

    Raises: as `measure_ceilings`.
    """
    ceilings = measure_ceilings(device, dtype)
    return rates_from(ceilings, chip_of(torch.cuda.get_device_properties(torch.device(device))))


def chip_of(properties: Any) -> Chip:
    """What the driver says of a GPU, `torch.cuda.get_device_properties`.

    It does not say how many multiply-adds a tensor core makes: `tensor_macs` is 0, for it is measured.
    """
    other_maker = bool(torch.version.hip)
    return Chip(
        name=properties.name,
        capability=0 if other_maker else 10 * properties.major + properties.minor,
        multiprocessors=properties.multi_processor_count,
        clock=1e3 * properties.clock_rate,
        # Two transfers a clock of the memory.
        memory_bytes=2 * 1e3 * properties.memory_clock_rate * properties.memory_bus_width / 8,
        cache_size=properties.L2_cache_size,
        tensor_macs=0,
        shared_bytes=properties.shared_memory_per_multiprocessor,
        source="the driver",
    )


def _gap(chip: Chip) -> float:
    return _DEPENDENT_GAP if chip.capability >= 90 else _GAP


def _by_clock(chip: Chip) -> dict[str, Any]:
    clocks = chip.multiprocessors * chip.clock
    return {
        "multiprocessors": chip.multiprocessors,
        "shared_capacity": chip.shared_bytes,
        "fma": clocks * _FMA_PER_CLOCK.get(chip.capability, _MOST_FMA_PER_CLOCK),
        "special": clocks * _SPECIAL_PER_CLOCK,
        "issue": clocks * _ISSUE_PER_CLOCK,
        "shared_bytes": clocks * _SHARED_PER_CLOCK,
    }
