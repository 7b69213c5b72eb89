"""Timing of single kernels on a GPU, from events of the GPU itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

#: Calls of one sample: at least this many, and more until so many microseconds are measured.
LEAST_CALLS, LEAST_MICROSECONDS = 5, 5_000.0
MOST_CALLS = 100


class DeviceTimer:
    """The median time of a call on the current CUDA device, none of whose data is in the L2 cache before.

    Between calls a buffer of twice the cache is written: otherwise a small tensor that the call before left
    there would make every kernel look faster than it is in a network. Writing it also takes the GPU longer
    than the host needs for the next launch, which so waits in the queue, and the time between the events is
    the kernel's and not the host's.
    """

    def __init__(self) -> None:
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._flush = torch.empty(2 * cache, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Callable[[], object]) -> float:
        """Microseconds of `call`, which is run once before, to compile and to warm up."""
        call()
        times = self._sample(call, LEAST_CALLS)
        calls = int(LEAST_MICROSECONDS / statistics.median(times))
        if calls > LEAST_CALLS:
            times = self._sample(call, min(calls, MOST_CALLS))
        return statistics.median(times)

    def _sample(self, call: Callable[[], object], calls: int) -> list[float]:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        for begin, end in events:
            self._flush.zero_()
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [1e3 * begin.elapsed_time(end) for begin, end in events]
