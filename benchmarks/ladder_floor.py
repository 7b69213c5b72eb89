"""The floor of a block: what its bytes and its arithmetic take at rates measured on the same machine."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.blocks import BlockCase
from benchmarks.ladder_bytes import rung_bytes
from benchmarks.limits import Limits, arithmetic_seconds


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
    arithmetic = arithmetic_seconds(case.layers, case.batch, case.dtype, limits.arithmetic)
    return Floor(
        bytes=moved,
        memory_us=1e6 * moved / limits.copy_bytes_per_second,
        arithmetic_us=None if arithmetic is None else 1e6 * arithmetic / case.batch,
    )
