"""Whether an engine's memory fits, known before it is asked for; and the batch that would fit if it does not.

A CPU's allocator grants what the system cannot give, and the process that touches it is killed. So what is
free is asked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from effnet_fast.inference.report import format_bytes

__all__ = ["EngineMemoryError", "explained", "free_bytes", "largest_batch", "require"]

_CGROUPS = Path("/sys/fs/cgroup")


class EngineMemoryError(torch.OutOfMemoryError):
    """The device has not enough memory for an engine; the message says how much it takes and what would fit.

    A `torch.OutOfMemoryError`, so that code which halves its batch on one goes on to work.
    """


def free_bytes(device: torch.device, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes that can still be allocated on `device`; None where nobody says (neither a CPU nor CUDA).

    On a CPU: what the system can give without swapping, or what the container's limit leaves (cgroup v2) if
    that is less. On CUDA: the driver's free memory and what PyTorch holds without using it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        import psutil
    except ImportError:  # a checkout that runs where it was never installed
        return None
    free = psutil.virtual_memory().available
    try:
        limit = (cgroups / "memory.max").read_text().strip()
        used = int((cgroups / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroups / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    # The page cache counts as used but is given back when it is needed.
    reclaimable = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
    return free if limit == "max" else max(0, min(free, int(limit) - used + reclaimable))


def largest_batch(needed: Callable[[int], int], free: int, batch: int) -> int:
    """The most images, below `batch`, whose `needed(images)` bytes are at most `free`; 0 if not even one's.

    `needed` grows with the number of images.
    """
    low, high = 0, batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= free else (low, middle)
    return low


def require(
    needed: Callable[[int], int], batch: int, device: torch.device, what: str, free: int | None = None
) -> None:
    """Raise EngineMemoryError unless `needed(batch)` bytes are free on `device`.

    Args:
        needed: bytes for a number of images.
        batch: images.
        device: where.
        what: the engine in a few words, for the message.
        free: bytes free; None: `free_bytes(device)`.
    """
    free = free_bytes(device) if free is None else free
    wanted = needed(batch)
    if free is None or wanted <= free:
        return
    fitting = largest_batch(needed, free, batch)
    advice = (
        f"batch_size={fitting} would fit"
        if fitting
        else f"one image needs {format_bytes(needed(1))}: free memory, or use smaller images or 16 bits"
    )
    raise EngineMemoryError(
        f"batch_size={batch} of {what} needs {format_bytes(wanted)}, "
        f"{format_bytes(free)} are free on {device}: {advice}"
    )


@contextmanager
def explained(batch: int, held: Callable[[], int], device: torch.device) -> Iterator[None]:
    """An allocator's OutOfMemoryError inside becomes an EngineMemoryError; `held()`: bytes of the engine."""
    try:
        yield
    except EngineMemoryError:
        raise
    except torch.OutOfMemoryError as error:
        free = free_bytes(device)
        raise EngineMemoryError(
            f"{device} is out of memory: the engine for batch_size={batch} holds {format_bytes(held())}, "
            f"{'?' if free is None else format_bytes(free)} are free; use a smaller batch_size, or free "
            f"memory ({str(error).splitlines()[0]})"
        ) from error
