"""A plan bound to memory: every call of a forward pass with its arguments ready.

All views of the arena, argument tuples and operator handles are made once for a number of images; what is
left for a forward pass is `handle(*arguments)` in a loop, and the stem's slice of the images. Calls of the
CPU library are not even that: they run as one (`native_program.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effnet_fast import ops
from effnet_fast.backends import Backend
from effnet_fast.inference.arguments import Held, Made, arguments, written
from effnet_fast.inference.layers import IMAGE, Layer, Value
from effnet_fast.inference.native_program import ImageRange, Run, observed, runs
from effnet_fast.inference.planner import Plan

__all__ = ["Opening", "Program", "allocate_arena", "assemble", "bind"]

Call = tuple[Callable[..., None], tuple]


@dataclass(frozen=True, eq=False)
class Opening:
    """Calls of which the first and the last read the images, with what comes between, as one call of a stem.

    What reads the images stays outside of a graph, and so does what those calls hand to each other. Without
    squeeze-excite, and with a stem of its own, a network opens with one call and needs none of this.

    `steps`: each call without its images, and whether they follow its output.
    """

    steps: tuple[tuple[Call, bool], ...]

    def bound(self, images: Tensor | ImageRange) -> list[Call]:
        """The calls on `images`: on as many of the images that they are bound for."""
        count = images.shape[0]
        calls = []
        for (call, given), reads_images in self.steps:
            # Packed weights, mean and std have one dimension; whatever has more begins with the images.
            y, *rest = (v[:count] if isinstance(v, Tensor) and v.dim() > 1 else v for v in given)
            calls.append((call, (y, images, *rest) if reads_images else (y, *rest)))
        return calls

    def __call__(self, y: Tensor, images: Tensor) -> None:
        for call, given in self.bound(images):
            call(*given)


@dataclass(frozen=True, eq=False)
class Pass:
    """Calls of a segment for images `begin`..`end`; `stem` is set where the segment starts at the images.

    Where two branches may run side by side, `calls` are those of the first half of these images and `beside`
    those of the second: the same layers, on other memory.

    `names` are the layers of `stem`, if there is one (several of an `Opening`), of `calls` and of `beside`.
    """

    begin: int
    end: int
    stem: Call | None
    calls: tuple[Call, ...]
    names: tuple[str, ...]
    beside: tuple[Call, ...] = ()

    def bound(self, images: Tensor | ImageRange) -> list[Call]:
        """Every call of this pass over a batch of `images`, the stem's with its images."""
        if self.stem is None:
            return [*self.calls, *self.beside]
        stem, (y, *rest) = self.stem
        images = images[self.begin : self.end]
        opening = stem.bound(images) if isinstance(stem, Opening) else [(stem, (y, images, *rest))]
        return [*opening, *self.calls, *self.beside]


@dataclass(frozen=True, eq=False)
class Program:
    """A forward pass over a fixed number of images; `output` [images, num_classes] lies in the arena.

    `runs`: the same calls, as many of them at a time as the CPU library takes; empty where it takes none.
    """

    passes: tuple[Pass, ...]
    output: Tensor
    runs: tuple[Run, ...] = ()

    def run(self, images: Tensor) -> Tensor:
        """The logits of `images` [n, C, H, W] in any layout; valid until the arena is used again."""
        if self.runs and not observed():
            for run in self.runs:
                run(images)
            return self.output
        for step in self.passes:
            if step.stem is not None:
                stem, (y, *rest) = step.stem
                stem(y, images[step.begin : step.end], *rest)
            for call, given in step.calls:
                call(*given)
            for call, given in step.beside:
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
        runs = plan.passes(images, segment)
        names = tuple(layer.name for layer in segment.layers)
        if segment.branches == 2 and len(runs) == 2:
            first, second = (
                tuple(binder.call(layer, *bounds, branch) for layer in segment.layers)
                for branch, bounds in enumerate(runs)
            )
            run.append(Pass(0, images, None, first, names + names, second))
            continue
        for begin, end in runs:
            calls = [binder.call(layer, begin, end) for layer in segment.layers]
            stem, rest = _opened(segment.layers, calls)
            run.append(Pass(begin, end, stem, tuple(rest), names))
    return assemble(tuple(run), binder.view(plan.output, 0, images).flatten(1), images)


def assemble(passes: tuple[Pass, ...], output: Tensor, images: int) -> Program:
    """The program of `passes` over a batch of `images`, with runs of calls left to the CPU library."""
    calls = [call for step in passes for call in step.bound(ImageRange(0, images))]
    return Program(passes, output, runs(calls))


def _opened(layers: Sequence[Layer], calls: Sequence[Call]) -> tuple[Call | None, Sequence[Call]]:
    """What reads the images, in the form of a stem, and the calls behind it."""
    reads = [layer.x.name == IMAGE for layer in layers]
    count = len(reads) - reads[::-1].index(True) if any(reads) else 0
    if count <= 1:
        return (calls[0] if count else None), calls[count:]
    last = calls[count - 1][1][0]
    return (Opening(tuple(zip(calls[:count], reads[:count], strict=True))), (last,)), calls[count:]


@dataclass(frozen=True, eq=False)
class _Binder:
    plan: Plan
    arena: Tensor
    weights: Mapping[str, Tensor]
    backends: Mapping[str, Backend]
    normalisation: tuple[Tensor | None, Tensor | None]

    def view(self, value: Value, begin: int, end: int, branch: int = 0) -> Tensor:
        """[end - begin, C, H, W] in channels_last memory: where `value` of these images of the batch lies.

        `branch`: 1 in the second of two branches, where values of one pass have memory of their own.
        """
        buffer = self.plan.buffers[value.name]
        offset = buffer.offset if branch == 0 or buffer.second is None else buffer.second
        if buffer.images < self.plan.batch:  # of one pass only: every pass uses it from the start
            begin, end = 0, end - begin
        channels, height, width = value.shape
        image_bytes = value.numel * buffer.dtype.itemsize
        start = offset + begin * image_bytes
        flat = self.arena[start : start + (end - begin) * image_bytes].view(buffer.dtype)
        return flat.view(end - begin, height, width, channels).permute(0, 3, 1, 2)

    def place(self, made: Made, begin: int, end: int, branch: int) -> Tensor:
        """The view of `made` with as many dimensions as its operator wants."""
        view = self.view(made.value, begin, end, branch)
        if made.rank == 3:  # partial sums, [n, tiles, C]: their value is [C, tiles, 1]
            return view.permute(0, 2, 3, 1).flatten(1, 2)
        return view.flatten(1) if made.rank == 2 else view

    def call(self, layer: Layer, begin: int, end: int, branch: int = 0) -> Call:
        """Handle and arguments of `layer`, outputs first; the stem's leave out the images."""
        mean, std = self.normalisation
        held = {"packed": self.weights[layer.name], "mean": mean, "std": std}
        given: list[Any] = [self.place(made, begin, end, branch) for made in written(layer)]
        for argument in arguments(layer, self.plan.dtype):
            if isinstance(argument, Held):
                given.append(held[argument.name])
            elif not isinstance(argument, Made):
                given.append(argument)
            elif argument.value.name != IMAGE:
                given.append(self.place(argument, begin, end, branch))
        return ops.handle(layer.operator, "packed_into", self.backends[layer.operator]), tuple(given)


def allocate_arena(plan: Plan, device: torch.device) -> Tensor:
    """The memory of `plan`: uint8, its start aligned to 64 bytes by PyTorch's allocators."""
    return torch.empty(plan.arena_bytes, dtype=torch.uint8, device=device)
