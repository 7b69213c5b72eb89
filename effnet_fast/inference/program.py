"""A plan bound to memory: every call of a forward pass with its arguments ready.

All views of the arena, argument tuples and operator handles are made once for a number of images; what is
left for a forward pass is `handle(*arguments)` in a loop, and the stem's slice of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effnet_fast import ops
from effnet_fast.backends import Backend
from effnet_fast.inference.arguments import Held, Made, arguments, written
from effnet_fast.inference.layers import IMAGE, Layer, Value
from effnet_fast.inference.planner import Plan

__all__ = ["Program", "allocate_arena", "bind"]

Call = tuple[Callable[..., None], tuple]


@dataclass(frozen=True, eq=False)
class Pass:
    """Calls of a segment for images `begin`..`end`; `stem` is set where the segment starts at the images.

    `names` are the layers of `stem`, if there is one, and of `calls`.
    """

    begin: int
    end: int
    stem: Call | None
    calls: tuple[Call, ...]
    names: tuple[str, ...]

    def bound(self, images: Tensor) -> list[Call]:
        """Every call of this pass over a batch of `images`, the stem's with its images."""
        if self.stem is None:
            return list(self.calls)
        stem, (y, *rest) = self.stem
        return [(stem, (y, images[self.begin : self.end], *rest)), *self.calls]


@dataclass(frozen=True, eq=False)
class Program:
    """A forward pass over a fixed number of images; `output` [images, num_classes] lies in the arena."""

    passes: tuple[Pass, ...]
    output: Tensor

    def run(self, images: Tensor) -> Tensor:
        """The logits of `images` [n, C, H, W] in any layout; valid until the arena is used again."""
        for step in self.passes:
            if step.stem is not None:
                stem, (y, *rest) = step.stem
                stem(y, images[step.begin : step.end], *rest)
            for call, given in step.calls:
                call(*given)
        return self.output


def bind(
    plan: Plan,
    images: int,
    arena: Tensor,
    weights: Mapping[str, Tensor],
    backends: Mapping[str, Backend],
    normalisation: tuple[Tensor | None, Tensor | None],
) -> Program:
    """The program of `plan` for `images` images (1 to `plan.batch`).

    Args:
        plan: places in `arena` and passes.
        images: how many.
        arena: uint8, at least `plan.arena_bytes`, 64-byte aligned.
        weights: {layer name: packed}.
        backends: {operator: resolved backend}.
        normalisation: mean and std for the stem, [C] float32 each, or None.
    """
    binder = _Binder(plan, arena, weights, backends, normalisation)
    run = []
    for segment in plan.segments:
        for begin, end in plan.passes(images, segment):
            calls = [binder.call(layer, begin, end) for layer in segment.layers]
            starts = segment.layers[0].x.name == IMAGE
            names = tuple(layer.name for layer in segment.layers)
            stem, rest = (calls[0], calls[1:]) if starts else (None, calls)
            run.append(Pass(begin, end, stem, tuple(rest), names))
    return Program(tuple(run), binder.view(plan.output, 0, images).flatten(1))


@dataclass(frozen=True, eq=False)
class _Binder:
    plan: Plan
    arena: Tensor
    weights: Mapping[str, Tensor]
    backends: Mapping[str, Backend]
    normalisation: tuple[Tensor | None, Tensor | None]

    def view(self, value: Value, begin: int, end: int) -> Tensor:
        """[end - begin, C, H, W] in channels_last memory: where `value` of these images of the batch lies."""
        buffer = self.plan.buffers[value.name]
        if buffer.images < self.plan.batch:  # of one pass only: every pass uses it from the start
            begin, end = 0, end - begin
        channels, height, width = value.shape
        image_bytes = value.numel * buffer.dtype.itemsize
        start = buffer.offset + begin * image_bytes
        flat = self.arena[start : start + (end - begin) * image_bytes].view(buffer.dtype)
        return flat.view(end - begin, height, width, channels).permute(0, 3, 1, 2)

    def place(self, made: Made, begin: int, end: int) -> Tensor:
        """The view of `made` with as many dimensions as its operator wants."""
        view = self.view(made.value, begin, end)
        if made.rank == 3:  # partial sums, [n, tiles, C]: their value is [C, tiles, 1]
            return view.permute(0, 2, 3, 1).flatten(1, 2)
        return view.flatten(1) if made.rank == 2 else view

    def call(self, layer: Layer, begin: int, end: int) -> Call:
        """Handle and arguments of `layer`, outputs first; the stem's leave out the images."""
        mean, std = self.normalisation
        held = {"packed": self.weights[layer.name], "mean": mean, "std": std}
        given: list[Any] = [self.place(made, begin, end) for made in written(layer)]
        for argument in arguments(layer, self.plan.dtype):
            if isinstance(argument, Held):
                given.append(held[argument.name])
            elif not isinstance(argument, Made):
                given.append(argument)
            elif argument.value.name != IMAGE:
                given.append(self.place(argument, begin, end))
        return ops.handle(layer.operator, "packed_into", self.backends[layer.operator]), tuple(given)


def allocate_arena(plan: Plan, device: torch.device) -> Tensor:
    """The memory of `plan`: uint8, its start aligned to 64 bytes by PyTorch's allocators."""
    return torch.empty(plan.arena_bytes, dtype=torch.uint8, device=device)
