"""Rates of a device, measured beside what they are compared with, and the least time that they allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from benchmarks.cases import DTYPES
from benchmarks.contest import candidate
from benchmarks.ideal import ideal_seconds
from effnet_fast.inference.cost import work
from effnet_fast.inference.layers import Layer
from effnet_fast.measure import Ceilings, Peaks, alternate, cpu_peaks, measure_ceilings

#: Of each of the two buffers of a copy: many times what any cache of the device holds.
COPY_BYTES = {"cpu": 512 << 20, "cuda": 2 << 30}


def copy_bandwidth(device: str, *, size: int | None = None) -> float:
    """Bytes a second that a plain copy reads and writes at its best: what else the machine does can only take
    from a ceiling.
    """
    size = size or COPY_BYTES[device]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    timed = alternate({"copy": candidate(lambda: target.copy_(source), device)}, rounds=5, min_seconds=0.1)
    return 2 * size / timed["copy"].best


@dataclass(frozen=True)
class Limits:
    """Rates that a floor divides by, all measured.

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


def measure_limits(device: str, dtype: str, *, copy: float | None = None) -> Limits:
    """The limits of `device` for maps of `dtype`, measured within seconds; of a CPU with torch's threads.

    `copy` is the `copy_bandwidth` where it is known: it does not depend on the dtype.
    """
    copy = copy or copy_bandwidth(device)
    if device == "cpu":
        return Limits(copy, cpu_peaks(torch.get_num_threads()))
    return Limits(copy, measure_ceilings(device, DTYPES[dtype]))


def arithmetic_seconds(
    layers: Sequence[Layer], images: int, dtype: str, rates: Peaks | Ceilings | None
) -> float | None:
    """What the arithmetic of `layers` takes at `rates`, None without them.

    A CPU's core does one thing after another; a GPU's units work side by side.
    """
    if rates is None:
        return None
    storage = DTYPES[dtype]
    if isinstance(rates, Peaks):
        return sum(ideal_seconds(layer, images, storage, storage, rates) for layer in layers)
    done = [work(layer, images, storage, storage) for layer in layers]
    units = (
        sum(part.matrix_macs for part in done) / rates.matrix_macs,
        sum(part.vector_macs for part in done) / rates.vector_macs,
        sum(part.special for part in done) / rates.special,
    )
    return sum(units) if rates.additive else max(units)


def peak_gmacs(layer: Layer, dtype: str, rates: Peaks | Ceilings | None) -> dict[str, float]:
    """1e9 multiply-adds a second of the units that `layer` may use, for the columns of a row."""
    if rates is None:
        return {}
    storage = torch.float32 if layer.x.single else DTYPES[dtype]
    on_cpu = isinstance(rates, Peaks)
    matrix = rates.matrix_macs(storage) if on_cpu else rates.matrix_macs
    vector = rates.fma_macs if on_cpu else rates.vector_macs
    return {"matrix_peak_gmacs": round(matrix / 1e9, 2), "vector_peak_gmacs": round(vector / 1e9, 2)}
