"""A whole MBConv block as calls of this project's operators, in each of the forms that it can take.

Weights are packed and memory is given, as in the engine: a call fills the block's output, and returns it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.unfused import ACTIVATIONS, GATES
from effnet_fast import ops
from effnet_fast.ops.geometry import pool_tiles
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Target

Call = Callable[[], Tensor]
Step = tuple[Callable, tuple]  # a function and its arguments


class BlockCalls:
    """The forms of one block on one backend; each method packs what its form needs and returns the call.

    Args:
        arguments: of `mbconv`, in schema order, on the backend's device.
        output: [N, Cout, OH, OW] in channels_last memory, which every call fills.
        backend: by name, not "auto".
    """

    def __init__(self, arguments: Sequence[Any], output: Tensor, backend: str) -> None:
        names = (parameter.name for parameter in OPERATORS["mbconv"].parameters)
        self._arguments, self._output, self._backend = arguments, output, backend
        self._of = SimpleNamespace(**dict(zip(names, arguments, strict=True)))
        self._expanded, self._kernel = self._of.w_dw.shape[0], self._of.w_dw.shape[-1]

    def whole(self) -> Call:
        """`mbconv`: one operator."""
        arguments = Target(self._backend, packed=True).pack_arguments("mbconv", self._arguments)
        return self._in_turn([(self._handle("mbconv"), (self._output, *arguments))])

    def three_kernels(self) -> Call:
        """Expansion; depthwise convolution and squeeze-excite; projection with gate and residual."""
        of, (hidden, steps) = self._of, self._expansion()
        if of.w1 is None:
            filtered, depthwise = self._depthwise(hidden)
            return self._in_turn([*steps, depthwise, self._projection(filtered, None)])
        filtered, gates = self._map(self._expanded, self._output), self._gates()
        weights = (of.w_dw, of.b_dw, of.w1, of.b1, of.w2, of.b2)
        packed = self._pack("depthwise_conv_gate", *weights, activation=of.activation)
        conv = (self._kernel, of.stride, of.padding, of.activation)
        given = (filtered, gates, hidden, packed, *conv, of.w1.shape[0], of.se_activation, of.gate)
        steps.append((self._handle("depthwise_conv_gate"), given))
        return self._in_turn([*steps, self._projection(filtered, gates)])

    def expansion_fused(self) -> Call:
        """The expansion inside the depthwise kernel; the gate; the projection. Needs an expansion."""
        of = self._of
        operator = "expand_depthwise" if of.w1 is None else "expand_depthwise_pool"
        weights = (of.w_expand, of.b_expand, of.w_dw, of.b_dw)
        packed = self._pack(operator, *weights, activation=of.activation)
        filtered = self._map(self._expanded, self._output)
        images, _, height, width = filtered.shape
        tiles = pool_tiles(height, width)
        sums = () if of.w1 is None else (self._single(images, tiles, self._expanded),)
        conv = (self._kernel, of.stride, of.padding, of.activation)
        given = (filtered, *sums, of.x, packed, self._expanded, of.activation, *conv)
        steps, gates = [(self._handle(operator), given)], None
        if of.w1 is not None:
            gates = self._gates()
            packed = self._pack("squeeze_excite_gate", of.w1, of.b1, of.w2, of.b2)
            given = (gates, *sums, height * width, packed, of.w1.shape[0], of.se_activation, of.gate)
            steps.append((self._handle("squeeze_excite_gate"), given))
        return self._in_turn([*steps, self._projection(filtered, gates)])

    def convolutions(self) -> Call:
        """Convolution, bias and activation in one kernel, as libraries fuse; everything else in PyTorch."""
        of, (hidden, steps) = self._of, self._expansion()
        filtered, depthwise = self._depthwise(hidden)
        steps.append(depthwise)
        if of.w1 is not None:
            w1, w2, storage = of.w1.flatten(1), of.w2.flatten(1), filtered.dtype
            squeezed_function, gate_function = ACTIVATIONS[of.se_activation], GATES[of.gate]

            def scale() -> None:
                mean = filtered.mean((2, 3), dtype=torch.float32)
                gates = gate_function(F.linear(squeezed_function(F.linear(mean, w1, of.b1)), w2, of.b2))
                filtered.mul_(gates.to(storage)[:, :, None, None])

            steps.append((scale, ()))
        steps.append(self._projection(filtered, None, residual=False))
        if of.residual:
            steps.append((self._output.add_, (of.x,)))
        return self._in_turn(steps)

    def _expansion(self) -> tuple[Tensor, list[Step]]:
        """What the depthwise convolution reads, and the call that makes it; none without an expansion."""
        of = self._of
        if of.w_expand is None:
            return of.x, []
        hidden = self._map(self._expanded, of.x)
        packed = self._pack("pointwise_conv", of.w_expand, of.b_expand, activation=of.activation)
        given = (hidden, of.x, packed, self._expanded, of.activation, None, None)
        return hidden, [(self._handle("pointwise_conv"), given)]

    def _depthwise(self, hidden: Tensor) -> tuple[Tensor, Step]:
        of, filtered = self._of, self._map(self._expanded, self._output)
        packed = self._pack("depthwise_conv", of.w_dw, of.b_dw, activation=of.activation)
        given = (filtered, hidden, packed, self._kernel, of.stride, of.padding, of.activation)
        return filtered, (self._handle("depthwise_conv"), given)

    def _projection(self, filtered: Tensor, gates: Tensor | None, *, residual: bool = True) -> Step:
        of = self._of
        packed = self._pack("pointwise_conv", of.w_project, of.b_project)
        given = (self._output, filtered, packed, self._output.shape[1], "identity", gates)
        return self._handle("pointwise_conv"), (*given, of.x if of.residual and residual else None)

    def _pack(self, operator: str, *weights: Tensor | None, activation: str = "identity") -> Tensor:
        return ops.pack(operator, *weights, activation=activation, backend=self._backend)

    def _handle(self, operator: str) -> Callable:
        return ops.handle(operator, "packed_into", self._backend)

    def _map(self, channels: int, like: Tensor) -> Tensor:
        """Memory for a map of `channels` as wide and high as `like`."""
        images, _, height, width = like.shape
        shape = (images, channels, height, width)
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)

    def _gates(self) -> Tensor:
        return self._single(self._output.shape[0], self._expanded)

    def _single(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._output.device)

    def _in_turn(self, steps: Sequence[Step]) -> Call:
        def call() -> Tensor:
            with torch.inference_mode():
                for function, arguments in steps:
                    function(*arguments)
            return self._output

        return call
