"""Choices that several operators share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from effnet_fast.triton_kernels.device import Device


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def width(size: int, widths: Sequence[int], waste: float) -> int:
    """The largest of `widths` whose multiples cover `size` with at most `waste` times the least products."""
    least = min(ceil_div(size, w) * w for w in widths)
    return max(w for w in widths if ceil_div(size, w) * w <= waste * least)


def covering(size: int, widths: Sequence[int]) -> int:
    """The least of ascending `widths` that covers `size`, or the last where none does."""
    return next((w for w in widths if size <= w), widths[-1])


def occupying(
    programs: Callable[[int, int], int], tiles: Sequence[tuple[int, int]], device: Device
) -> tuple[int, int]:
    """The first of `tiles` (rows, columns; large ones first) whose `programs` give half the GPU some work."""
    return next((tile for tile in tiles if 2 * programs(*tile) >= device.multiprocessors), tiles[-1])


def warps_for(rows: int, columns: int, itemsize: int) -> int:
    """Warps for a block: up to 64 accumulators a thread in 16 bits, which takes 115 to 189 registers.

    Up to 16 in float32, whose operands are in registers too: with 32, one layer spilled on sm_80.
    """
    if itemsize == 4:
        return 8 if rows * columns > 2048 else 4 if rows * columns > 512 else 2
    return 8 if rows * columns > 8192 else 4 if rows * columns > 1024 else 2


def staged_bytes(rows: int, columns: int, depth: int, stages: int, itemsize: int) -> int:
    """Shared memory of a pipelined product: operands `stages` deep, or the float32 result on its way out."""
    return max((rows + columns) * depth * stages * itemsize, rows * columns * 4)


def affordable_stages(rows: int, columns: int, depth: int, most: int, itemsize: int, device: Device) -> int:
    """The deepest pipeline, up to `most` stages, whose blocks fit the shared memory of `device`."""
    fits = [
        s
        for s in range(1, most + 1)
        if staged_bytes(rows, columns, depth, s, itemsize) <= device.shared_bytes
    ]
    return max(fits, default=1)


def neighbours(rows: int, columns: int) -> list[tuple[int, int]]:
    """Blocks with half, once and twice each size, none below 16."""
    factors = (0.5, 1, 2)
    return [
        (int(rows * r), int(columns * c)) for r in factors for c in factors if rows * r >= 16 <= columns * c
    ]


def unique(configs: Iterable) -> list:
    """`configs` without repetitions, in their order."""
    return list(dict.fromkeys(configs))
