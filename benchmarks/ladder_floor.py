"""The floor of a block: what its bytes and its arithmetic take at rates measured on the same machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from benchmarks.blocks import BlockCase
from benchmarks.cases import DTYPES
from benchmarks.ladder_bytes import rung_bytes
from benchmarks.operators import copy_bandwidth
from effnet_fast.inference.cost import work
from effnet_fast.measure import Ceilings, Peaks, cpu_peaks, measure_ceilings


@dataclass(frozen=True)
class Limits:
    """Rates that the floor divides by, all measured.

    Attributes:
        copy_bytes_per_second: bytes a second that a plain copy reads and writes.
        arithmetic: of a CPU what its registers can do, of a GPU the best rates of kernels; None where the
            native library that measures them is missing.
    """

    copy_bytes_per_second: float
    arithmetic: Peaks | Ceilings | None

    def record(self) -> dict[str, object]:
        """For the environment of a result file."""
        rates = None if self.arithmetic is None else asdict(self.arithmetic)
        return {"copy_bytes_per_second": self.copy_bytes_per_second, "arithmetic": rates}


def measure_limits(device: str, dtype: str) -> Limits:
    """The limits of `device` for maps of `dtype`, measured within seconds; of a CPU with torch's threads."""
    if device == "cpu":
        return Limits(copy_bandwidth(device), cpu_peaks(torch.get_num_threads()))
    return Limits(copy_bandwidth(device), measure_ceilings(device, DTYPES[dtype]))


@dataclass(frozen=True)
class Floor:
    """Microseconds an image that a block takes at least: its input and output, `bytes`, by a copy; its
    arithmetic.
    """

    bytes: int
    memory_us: float
    arithmetic_us: float | None

    @property
    def us(self) -> float:
        return max(self.memory_us, self.arithmetic_us or 0.0)

    @property
    def bound(self) -> str:
        return "memory" if self.us == self.memory_us else "arithmetic"

    def record(self) -> dict[str, object]:
        """Columns of the result file."""
        arithmetic = None if self.arithmetic_us is None else round(self.arithmetic_us, 4)
        return {
            "floor_bytes": self.bytes,
            "floor_us": round(self.us, 4),
            "floor_bound": self.bound,
            "floor_memory_us": round(self.memory_us, 4),
            "floor_arithmetic_us": arithmetic,
        }


def floor(case: BlockCase, limits: Limits) -> Floor:
    """The floor of one image of `case`."""
    moved = rung_bytes(case, "whole")
    arithmetic = _arithmetic_seconds(case, limits.arithmetic)
    return Floor(
        bytes=moved,
        memory_us=1e6 * moved / limits.copy_bytes_per_second,
        arithmetic_us=None if arithmetic is None else 1e6 * arithmetic / case.batch,
    )


def _arithmetic_seconds(case: BlockCase, rates: Peaks | Ceilings | None) -> float | None:
    """Of a whole batch. A CPU's core does one thing after another; a GPU's units work side by side."""
    if rates is None:
        return None
    if isinstance(rates, Peaks):
        return case.ideal_ms(rates) / 1e3
    storage = DTYPES[case.dtype]
    done = [work(layer, case.batch, storage, storage) for layer in case.layers]
    units = (
        sum(part.matrix_macs for part in done) / rates.matrix_macs,
        sum(part.vector_macs for part in done) / rates.vector_macs,
        sum(part.special for part in done) / rates.special,
    )
    return sum(units) if rates.additive else max(units)
