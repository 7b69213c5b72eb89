"""What differs between measuring on a CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from effnet_fast.measure import CallBatches, Candidate, LocalCandidate

DEVICES = ("cpu", "cuda")


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
