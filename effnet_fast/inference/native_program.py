"""Consecutive calls of the CPU library as one call of the dispatcher.

Through the dispatcher a call takes 3 us of the host, most of it for boxing a dozen arguments and taking them
apart again. So runs of calls are described once to the library (csrc/cpu/program.h), which keeps their
decoded arguments and then calls the very functions that the dispatcher would: 0.2 us each, the same checks
and the same bits.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effnet_fast import native
from effnet_fast.ops.schemas import overload

__all__ = ["ImageRange", "described", "observed", "runs"]

Call = tuple[Callable[..., None], tuple]
Run = Callable[[Tensor], None]

# How csrc/cpu/program.h writes them.
_NONE = -1
_IMAGES = -2


@dataclass(frozen=True)
class ImageRange:
    """Images `begin`..`end` of whatever batch a program will run on, where a call has its images."""

    begin: int
    end: int

    @property
    def shape(self) -> tuple[int, ...]:
        """[images]: how many; the rest is not known yet."""
        return (self.end - self.begin,)

    def __getitem__(self, part: slice) -> ImageRange:
        """Images of these, as a tensor gives them for a slice of its first dimension."""
        begin, end, _ = part.indices(self.end - self.begin)
        return ImageRange(self.begin + begin, self.begin + max(begin, end))

    def of(self, images: Tensor) -> Tensor:
        return images[self.begin : self.end]


def observed() -> bool:
    """Whether somebody looks at single operators: PyTorch's profiler, or a `TorchDispatchMode`."""
    return torch.autograd._profiler_enabled() or torch._C._len_torch_dispatch_stack() > 0


def runs(calls: Sequence[Call]) -> tuple[Run, ...]:
    """`calls`, with an `ImageRange` for images, as functions of the images; empty if none is the library's.

    Each run of consecutive calls that the CPU library has functions for becomes one function, every other
    call a function of its own. They do what the calls do, in order.
    """
    names = _operators()
    if not any(_name(call, names) for call in calls):
        return ()
    found: list[Run] = []
    for is_native, group in itertools.groupby(calls, lambda call: _name(call, names) is not None):
        if is_native:
            found.append(_NativeRun([(names[handle], given) for handle, given in group]))
        else:
            found.extend(functools.partial(_call, call) for call in group)
    return tuple(found)


def described(calls: Sequence[tuple[str, tuple]]) -> tuple[list[str], list[int], list[Tensor]]:
    """Names, words and tensors of `calls`, (operator, arguments in the order of its schema) each.

    They are what `effnet_fast::cpu_program` takes, which checks all of them; csrc/cpu/program.h says how they
    are written.
    """
    names: dict[str, int] = {}
    words: list[int] = []
    tensors: list[Tensor] = []
    places: dict[int, int] = {}

    def written(value: Any) -> list[int]:
        if value is None:
            return [_NONE]
        if isinstance(value, Tensor):
            if id(value) not in places:
                places[id(value)] = len(tensors)
                tensors.append(value)
            return [places[id(value)]]
        if isinstance(value, ImageRange):
            return [_IMAGES, value.begin, value.end]
        if isinstance(value, torch.dtype):
            value = str(value).removeprefix("torch.")
        if isinstance(value, str):
            return [names.setdefault(value, len(names))]
        if isinstance(value, int):  # or bool
            return [int(value)]
        return [int(number) for number in value]

    for operator, given in calls:
        (name,) = written(operator)
        given_words = [word for value in given for word in written(value)]
        words += [name, len(given_words), *given_words]
    return list(names), words, tensors


class _NativeRun:
    """Calls that the library runs. It holds their tensors until this object is gone."""

    def __init__(self, calls: Sequence[tuple[str, tuple]]):
        library = torch.ops.effnet_fast
        self._number = library.cpu_program(*described(calls))
        self._run = library.cpu_program_run.default
        weakref.finalize(self, library.cpu_program_free.default, self._number)

    def __call__(self, images: Tensor) -> None:
        self._run(self._number, images)


@functools.cache
def _operators() -> dict[Callable, str]:
    """{handle: operator} of what the library runs in a program."""
    if not native.available("cpu"):
        return {}
    return {overload(name): name for name in torch.ops.effnet_fast.cpu_program_operators().split(",")}


def _name(call: Call, names: dict[Callable, str]) -> str | None:
    """The operator that the library would run for `call`; None where it would not.

    A GPU's kernels are behind the same handles, and tensors on a GPU.
    """
    handle, given = call
    name = names.get(handle)
    tensors = (value for value in given if isinstance(value, Tensor))
    return name if name and all(tensor.device.type == "cpu" for tensor in tensors) else None


def _call(call: Call, images: Tensor) -> None:
    handle, given = call
    handle(*(value.of(images) if isinstance(value, ImageRange) else value for value in given))
