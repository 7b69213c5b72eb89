"""What differs between measuring on a CPU and on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from effnet_fast.measure import Candidate, LocalCandidate

DEVICES = ("cpu", "cuda")

#: Calls between two synchronisations on a GPU take about this long, and there are at most so many: a
#: throughput is that of a queue which is never empty, and a launch is fast where the one before hides it.
BATCH_SECONDS = 0.02
MOST_CALLS = 1000


def default_device() -> str:
    """ "cuda" where there is a GPU that PyTorch can use, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str | None) -> str:
    """`device`, None for the default; ValueError for a GPU that is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no GPU that PyTorch can use")
    return device or default_device()


def configure(device: str) -> None:
    """The settings of this process under which every peer is measured on `device`; touches no device.

    cuDNN searches for the fastest kernel of each convolution, and float32 means float32: with TF32, which
    PyTorch allows convolutions, stock results are wrong by 1000 times what the gate allows.
    """
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def give_memory_back(device: str) -> None:
    """Free what the caching allocator keeps: every peer of a case is a process on the same GPU."""
    if device == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what was missing. Libraries below PyTorch say so in words alone."""
    words = str(error).lower()
    said = "out of memory" in words or "can't allocate memory" in words
    return said or isinstance(error, (MemoryError, torch.OutOfMemoryError))


def candidate(call: Callable[[], object], device: str, *, each_call: bool = False) -> Candidate:
    """`call` as it is timed on `device`.

    On a CPU call by call. On a GPU in batches of calls, or with `each_call` from an idle GPU to an idle GPU:
    the latency that somebody waits for.
    """
    if device == "cpu":
        return LocalCandidate(call)
    if each_call:
        return LocalCandidate(call, synchronize=torch.cuda.synchronize)
    return CallBatches(call, synchronize=torch.cuda.synchronize)


class CallBatches:
    """A candidate whose calls are timed in batches of `BATCH_SECONDS`, synchronised before and after each.

    Args:
        call: the work.
        synchronize: waits for the device.
        options: of `LocalCandidate`.
    """

    def __init__(
        self, call: Callable[[], object], *, synchronize: Callable[[], None], **options: object
    ) -> None:
        self._call = call
        self._calls = 0
        self._batch = LocalCandidate(self._run, synchronize=synchronize, **options)

    def _run(self) -> None:
        for _ in range(self._calls):
            self._call()

    def sample(self, min_seconds: float) -> list[float]:
        """Seconds of each call: the mean of its batch."""
        if not self._calls:
            self._calls = 1
            (seconds,) = self._batch.sample(0.0)
            self._calls = min(MOST_CALLS, max(1, math.ceil(BATCH_SECONDS / max(seconds, 1e-9))))
        batches = self._batch.sample(min_seconds)
        return [seconds / self._calls for seconds in batches for _ in range(self._calls)]
