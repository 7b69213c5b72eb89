"""Peak memory of one call, from the allocations that PyTorch's allocator reports."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_allocated_bytes(call: Callable[[], object]) -> int:
    """Most bytes that `call` held at once on the CPU through PyTorch's allocator, beyond what was held
    before.

    Counts activations and every temporary tensor, of eager, compiled and our own code alike. Does not count
    weights (they are there before), nor scratch that a library takes from malloc behind PyTorch's back.
    `call` must have been made once already: what is allocated once (packed weights, caches) belongs to
    set-up.
    """
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
