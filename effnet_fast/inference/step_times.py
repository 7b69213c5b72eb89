"""Seconds of each step of a program, measured inside a forward pass: caches are as warm as in use."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from effnet_fast.inference.program import Program

__all__ = ["step_seconds"]

#: Repeats until so many seconds are measured, at most `MOST_REPEATS`: a median of a dozen short passes, one
#: pass of a network that takes longer.
SECONDS = 0.25
MOST_REPEATS = 11

# More than the clock of any GPU.
_CYCLES_A_SECOND = 3e9


def step_seconds(
    program: Program,
    images: Tensor,
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """{layer name: median seconds of all its passes over `images`}.

    Args:
        program: bound for as many images as are given; run once before.
        images: [n, C, H, W] on the program's device.
        seconds: repeats stop after this long, never before one is complete.
        clock: of the host. On CUDA a step's time is that between two events of the device, without what its
            launch takes the host.
    """
    timed = (_timed_by_events if images.device.type == "cuda" else _timed_by)(clock)
    program.run(images)
    samples: dict[str, list[float]] = {}
    begin = clock()
    for _ in range(MOST_REPEATS):
        for name, taken in timed(program, images).items():
            samples.setdefault(name, []).append(taken)
        if clock() - begin > seconds:
            break
    return {name: statistics.median(taken) for name, taken in samples.items()}


def _timed_by(clock: Callable[[], float]) -> Callable[[Program, Tensor], dict[str, float]]:
    def timed(program: Program, images: Tensor) -> dict[str, float]:
        totals: dict[str, float] = {}
        for step in program.passes:
            for name, (call, arguments) in zip(step.names, step.bound(images), strict=True):
                begin = clock()
                call(*arguments)
                totals[name] = totals.get(name, 0.0) + clock() - begin
        return totals

    return timed


def _timed_by_events(clock: Callable[[], float]) -> Callable[[Program, Tensor], dict[str, float]]:
    def timed(program: Program, images: Tensor) -> dict[str, float]:
        begin = clock()
        program.run(images)
        # To launch a small kernel takes the host longer than to run it takes the device, which would wait for
        # the launch between the events. So it is kept busy until all is queued: as long as that took just
        # now, and twice as long for the events.
        torch.cuda._sleep(int(3 * (clock() - begin) * _CYCLES_A_SECOND))
        marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        for step in program.passes:
            for name, (call, arguments) in zip(step.names, step.bound(images), strict=True):
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                call(*arguments)
                last.record()
                marks.append((name, first, last))
        torch.cuda.synchronize(images.device)
        totals: dict[str, float] = {}
        for name, first, last in marks:
            totals[name] = totals.get(name, 0.0) + first.elapsed_time(last) / 1e3
        return totals

    return timed
