"""A plan bound to memory: every call of a forward pass with its arguments ready.

All views of the arena, argument tuples and operator handles are made once for a number of images; what is
left for a forward pass is `handle(*arguments)` in a loop, and the stem's slice of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from effnet_fast import ops
from effnet_fast.backends import Backend
from effnet_fast.inference.layers import IMAGE, Layer, Value
from effnet_fast.inference.planner import Plan

__all__ = ["Program", "allocate_arena", "bind"]

Call = tuple[Callable[..., None], tuple]


@dataclass(frozen=True, eq=False)
class Pass:
    """Calls of a segment for images `begin`..`end`; `stem` is set where the segment starts at the images."""

    begin: int
    end: int
    stem: Call | None
    calls: tuple[Call, ...]


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
            for call, arguments in step.calls:
                call(*arguments)
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
            run.append(Pass(begin, end, calls[0] if starts else None, tuple(calls[1:] if starts else calls)))
    return Program(tuple(run), binder.view(plan.output, 0, images).flatten(1))


@dataclass(frozen=True, eq=False)
class _Binder:
    plan: Plan
    arena: Tensor
    weights: Mapping[str, Tensor]
    backends: Mapping[str, Backend]
    normalisation: tuple[Tensor | None, Tensor | None]

    def view(self, value: Value | None, begin: int, end: int) -> Tensor | None:
        """[end - begin, C, H, W] in channels_last memory: where `value` of these images of the batch lies."""
        if value is None:
            return None
        buffer = self.plan.buffers[value.name]
        if buffer.images < self.plan.batch:  # of one pass only: every pass uses it from the start
            begin, end = 0, end - begin
        channels, height, width = value.shape
        image_bytes = value.numel * buffer.dtype.itemsize
        start = buffer.offset + begin * image_bytes
        flat = self.arena[start : start + (end - begin) * image_bytes].view(buffer.dtype)
        return flat.view(end - begin, height, width, channels).permute(0, 3, 1, 2)

    def call(self, layer: Layer, begin: int, end: int) -> Call:
        """Handle and arguments of `layer`, outputs first; the stem's leave out the images."""
        handle = ops.handle(layer.operator, "packed_into", self.backends[layer.operator])
        return handle, _ARGUMENTS[layer.operator](self, layer, self.weights[layer.name], begin, end)

    def stem_conv(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        y = self.view(layer.y, begin, end)
        mean, std = self.normalisation
        geometry = layer.y.shape[0], layer.kernel, layer.stride, layer.padding
        return y, packed, *geometry, layer.activation, mean, std, self.plan.dtype

    def depthwise_conv(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        x, y = self.view(layer.x, begin, end), self.view(layer.y, begin, end)
        return y, x, packed, layer.kernel, layer.stride, layer.padding, layer.activation

    def depthwise_conv_gate(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        y, *rest = self.depthwise_conv(layer, packed, begin, end)
        gates = self.view(layer.gates, begin, end).flatten(1)
        return y, gates, *rest, layer.squeeze, layer.se_activation, layer.gate_function

    def expand_depthwise(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        x, y = self.view(layer.x, begin, end), self.view(layer.y, begin, end)
        convolution = layer.kernel, layer.stride, layer.padding, layer.activation
        return y, x, packed, layer.y.shape[0], layer.expand_activation, *convolution

    def expand_depthwise_pool(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        y, *rest = self.expand_depthwise(layer, packed, begin, end)
        return y, self.tiles(layer.sums, begin, end), *rest

    def squeeze_excite_gate(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        sums, gates = self.tiles(layer.x, begin, end), self.view(layer.y, begin, end).flatten(1)
        return gates, sums, layer.count, packed, layer.squeeze, layer.activation, layer.gate_function

    def tiles(self, sums: Value, begin: int, end: int) -> Tensor:
        """[end - begin, tiles, C]: the partial sums, whose value is [C, tiles, 1]."""
        return self.view(sums, begin, end).permute(0, 2, 3, 1).flatten(1, 2)

    def pointwise_conv(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        x, y = self.view(layer.x, begin, end), self.view(layer.y, begin, end)
        gate, residual = self.view(layer.gate, begin, end), self.view(layer.residual, begin, end)
        gate = None if gate is None else gate.flatten(1)
        return y, x, packed, layer.y.shape[0], layer.activation, gate, residual

    def head_pool(self, layer: Layer, packed: Tensor, begin: int, end: int) -> tuple:
        x, y = self.view(layer.x, begin, end), self.view(layer.y, begin, end).flatten(1)
        return y, x, packed, layer.y.shape[0], layer.activation


# Orders of the `packed_into` schemas.
_ARGUMENTS: dict[str, Callable[[_Binder, Layer, Tensor, int, int], tuple]] = {
    "stem_conv": _Binder.stem_conv,
    "depthwise_conv": _Binder.depthwise_conv,
    "depthwise_conv_gate": _Binder.depthwise_conv_gate,
    "expand_depthwise": _Binder.expand_depthwise,
    "expand_depthwise_pool": _Binder.expand_depthwise_pool,
    "squeeze_excite_gate": _Binder.squeeze_excite_gate,
    "pointwise_conv": _Binder.pointwise_conv,
    "head_pool": _Binder.head_pool,
}


def allocate_arena(plan: Plan, device: torch.device) -> Tensor:
    """The memory of `plan`: uint8, its start aligned to 64 bytes by PyTorch's allocators."""
    return torch.empty(plan.arena_bytes, dtype=torch.uint8, device=device)
