"""One launch as data: it can be run, and it can be compiled for a GPU that is not there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import device as devices
from .configs.blocks import ceil_div

__all__ = ["Launch", "ceil_div", "run", "vector"]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel.

    Attributes:
        kernel: a function under ``triton.jit``.
        programs: how many instances run; they number themselves by ``tl.program_id(0)`` (one dimension,
            because the others end at 65535).
        arguments: run-time arguments by name: tensors, integers, floats, or None for an absent tensor.
        constants: compile-time arguments by name. With the dtypes of the tensors they are the compile key.
        warps, stages: threads / 32 of an instance, and depth of its software pipeline.
    """

    kernel: Any
    programs: int
    arguments: Mapping[str, Tensor | int | float | None]
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 1

    def run(self) -> None:
        self.kernel[(self.programs,)](
            **self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages
        )


def vector(*channels: int) -> int:
    """The largest of 8, 4, 2, 1 that divides all of `channels`.

    Kernels take a channel count as a number of such units, a run-time value, and the unit as a constant: then
    the compiler knows that a pixel begins at a multiple of 16 bytes, and loads that much at once, without one
    compilation per channel count (24, 40, 56, 136 and 232 are no multiples of 16, which is all that Triton
    finds out by itself).
    """
    return next(unit for unit in (8, 4, 2, 1) if all(count % unit == 0 for count in channels))


def run(launches: Callable, outputs: Sequence[Tensor], arguments: Sequence[Any]) -> None:
    """Run `launches(device, outputs, *arguments)` in order, on the device of the first output."""
    place = outputs[0].device
    with _on(outputs[0]):
        for launch in launches(devices.of(place), outputs, *arguments):
            launch.run()


def _on(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    if not tensor.is_cuda:
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)
