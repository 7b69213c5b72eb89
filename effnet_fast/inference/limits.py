"""What the planner may know about the processor: cache sizes and threads, read in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from effnet_fast.measure.caches import CPU_CACHES, cache_sizes

# Used where the machine does not tell: the smallest caches of current server cores.
_FALLBACK_L2 = 1 << 20
_FALLBACK_L3 = 8 << 20


@dataclass(frozen=True)
class CpuLimits:
    """Cache sizes in bytes and the number of threads that share the work.

    `l2_bytes` is the second-level cache of one core, `l3_bytes` the last-level cache that the threads
    share (0 where there is none).
    """

    l2_bytes: int
    l3_bytes: int
    threads: int

    def __post_init__(self) -> None:
        for name, least in (("l2_bytes", 0), ("l3_bytes", 0), ("threads", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")

    @property
    def budget_bytes(self) -> int:
        """Bytes that the input and output of one step should fit: max(l3 / 4, threads * l2).

        A quarter of the last level, because packed weights, the maps between segments and other users of
        the machine need the rest; the sum of the second levels where that is more, as on processors with a
        small or sliced last level. B0 with 16 images on one core with 32 MiB of L3: 4 to 16 MiB are within
        5% of one another, 1 image at a time costs 7% (float32) to 15% (bfloat16) more, all 16 together 25%.
        """
        return max(self.l3_bytes // 4, self.threads * self.l2_bytes)

    @classmethod
    def detect(cls, caches: Path = CPU_CACHES, threads: int | None = None) -> CpuLimits:
        """The limits of this machine, from sysfs; a documented guess where sysfs does not say."""
        sizes = cache_sizes(caches)
        return cls(
            l2_bytes=sizes.get(2, _FALLBACK_L2),
            l3_bytes=sizes.get(3, 0 if 2 in sizes else _FALLBACK_L3),
            threads=torch.get_num_threads() if threads is None else threads,
        )
