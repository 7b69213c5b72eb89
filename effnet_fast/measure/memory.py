"""Peak memory of one call, as PyTorch's allocators report it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_allocated_bytes(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Most bytes that `call` held at once on `device` through PyTorch's allocator, beyond those held before.

    Counts activations and every temporary tensor, of eager, compiled and our own code alike. Does not count
    weights (they are there before), nor scratch that a library takes from malloc or cudaMalloc behind
    PyTorch's back; on CUDA the workspaces of cuDNN and cuBLAS are PyTorch's, and do count.
    `call` must have been made once already: what is allocated once (packed weights, caches) belongs to
    set-up.

    Args:
        call: its result is dropped.
        device: a CPU or a CUDA device; whatever else uses that CUDA device in this process counts, too.

    Raises: ValueError for a device of another type.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _cuda_peak(call, device)
    if device.type != "cpu":
        raise ValueError(f"peak_allocated_bytes: device is {str(device)!r}; allowed: cpu and cuda")
    return _cpu_peak(call)


def _cuda_peak(call: Callable[[], object], device: torch.device) -> int:
    """The caching allocator keeps its own peak; a kernel that still runs frees nothing, hence the waiting."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(call: Callable[[], object]) -> int:
    # acc_events: read while the profile is complete; otherwise torch warns that a cycle clears it.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        result = call()
    del result
    # The per-allocation records have no public accessor in torch 2.11; the public table only has sums per
    # operator.
    records = [
        (event.start_ns(), event.nbytes())
        for event in profiled.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU
    ]
    held = peak = 0
    for _, change in sorted(records, key=lambda record: record[0]):
        held += change
        peak = max(peak, held)
    return peak
