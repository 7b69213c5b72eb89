"""What a CPU's arithmetic can do at most: multiply-adds and SiLU evaluations a second, on registers alone.

Not the ceilings of `effnet_fast.measure.ceilings`, which are rates of this project's kernels at their best: a
kernel is judged by what the machine could do, so nothing is loaded or stored here and no kernel takes part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from effnet_fast import native

__all__ = ["Peaks", "cpu_peaks"]

# A call of this long is timed: far above the clock's resolution and the dispatcher's microseconds.
_SECONDS = 0.005

# The best of these counts: whatever else the machine does can only take from a peak.
_ROUNDS = 9

# What the first argument of the operator chooses.
_FMA, _DOT, _SILU = 0, 1, 2

# (kind, iterations) -> multiply-adds or evaluations done, by the calling thread.
PeakOperator = Callable[[int, int], int]


@dataclass(frozen=True)
class Peaks:
    """Rates of all threads together.

    Attributes:
        fma_macs: multiply-adds a second of float32 vectors.
        dot_macs: multiply-adds a second of bfloat16 pairs summed in float32; `fma_macs` where the CPU has no
            such instruction, for there the kernels compute in float32.
        silu: SiLU evaluations a second, to the accuracy that float32 needs. In 16 bits kernels evaluate
            shorter polynomials, up to one and a half times as fast.
    """

    fma_macs: float
    dot_macs: float
    silu: float

    def matrix_macs(self, dtype: torch.dtype) -> float:
        """Multiply-adds a second of matrix products of `dtype`: only bfloat16 has instructions of its own."""
        return self.dot_macs if dtype == torch.bfloat16 else self.fma_macs


def cpu_peaks(
    threads: int,
    *,
    operator: PeakOperator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Peaks | None:
    """The peaks of `threads` threads, measured in 0.2 s; None where the native library does not measure them.

    Args:
        threads: at least 1. One thread is timed and the others count as much: `effnet_fast::cpu_peak` holds
            Python's lock, and a core is as fast beside busy ones (two processes at once reached as much as
            one, each, on 2 cores of Zen 5). Where threads share a core, or all cores together clock lower
            than one, the peaks are more than the machine can do, and shares of them too small.
        operator: `effnet_fast::cpu_peak`, where it is not the library's.
        clock: seconds, monotonic.

    Raises: ValueError for fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f"cpu_peaks: threads is {threads}; allowed: 1 and more")
    if operator is None:
        operator = _library_operator()
    if operator is None:
        return None
    fma, dot, silu = (_rate(operator, kind, clock) for kind in (_FMA, _DOT, _SILU))
    return Peaks(threads * fma, threads * (dot or fma), threads * silu)


def _library_operator() -> PeakOperator | None:
    native.load()
    packet = getattr(torch.ops.effnet_fast, "cpu_peak", None)
    return None if packet is None else packet.default


def _rate(operator: PeakOperator, kind: int, clock: Callable[[], float]) -> float:
    """Operations a second of one thread; 0 where the CPU has no instruction of this `kind`."""
    iterations, best = 1 << 10, 0.0
    while True:
        begin = clock()
        done = operator(kind, iterations)
        taken = clock() - begin
        if done == 0 or taken >= _SECONDS:
            break
        iterations *= 2
    for _ in range(_ROUNDS if done else 0):
        begin = clock()
        done = operator(kind, iterations)
        best = max(best, done / (clock() - begin))
    return best
