"""A block's calls with packed weights: made once, run on any input of one storage dtype and device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effnet_fast import backends, ops
from effnet_fast.backends import Backend
from effnet_fast.fusion.calls import SCALE, Call, calls_of
from effnet_fast.fusion.geometry import output_size
from effnet_fast.fusion.spec import Block
from effnet_fast.fusion.weights import weights_of
from effnet_fast.ops.schemas import operator

__all__ = ["Program", "bind", "runs_native"]


class Program:
    """What computes a block. Calling it does no checks: `effnet_fast.fusion.state` has done them.

    Attributes:
        packed: the packed weights of each call that has any, in order.
    """

    def __init__(self, block: Block, steps: Sequence[_Step], packed: Sequence[Tensor]):
        self.packed = tuple(packed)
        self._steps = tuple(steps)
        self._adds_input = block.residual and not steps[-1].residual

    def __call__(self, x: Tensor, *, functional: bool = False) -> Tensor:
        """The block's output for x, [N, C, H, W] in the dtype that it was made for; channels_last memory.

        Args:
            x: in any memory format.
            functional: use operators that return what they compute, for what does not trace mutation.
        """
        block_input = x = x.contiguous(memory_format=torch.channels_last)
        weights = iter(self.packed)
        gates = None
        for step in self._steps:
            x, gates = step(x, gates, block_input, weights, functional)
        # Not in place: a compiler may have been given x itself.
        return x + block_input if self._adds_input else x


class _Step:
    """One operator: its constant arguments are in a list, made once."""

    def __init__(self, call: Call, backend: Backend):
        self.residual = call.residual
        self._gated, self._name = call.gated, call.operator
        if call.operator == SCALE:
            return
        row, spatial, se = operator(call.operator), call.spatial, call.squeeze_excite
        self._conv = spatial
        self._into, self._functional = (
            ops.handle(call.operator, variant, backend) for variant in ("packed_into", "packed")
        )
        # A gate and a residual are tensors in some operators; in those of whole blocks they are a function's
        # name and a flag.
        known: dict[str, Any] = {"squeeze": 0, "se_activation": "identity", "gate": "sigmoid"}
        known["residual"] = call.residual
        if se is not None:
            known |= {"squeeze": se.reduce.out_channels, "se_activation": se.activation, "gate": se.gate}
            known["activation"] = se.activation
        if spatial is not None:
            known |= {"kernel": spatial.kernel, "stride": spatial.stride, "activation": spatial.activation}
            known["out_channels"] = self._out_channels = call.convs[-1].out_channels
            known["expanded"] = spatial.out_channels
        parameters = row.packed_parameters
        self._arguments = [None if p.is_tensor else known.get(p.name) for p in parameters]
        # Where the arguments stand that are not known before the call.
        self._at = {
            p.name: i
            for i, p in enumerate(parameters)
            if p.is_tensor or p.name in ("padding", "count", "dtype")
        }

    def __call__(self, x, gates, block_input, weights, functional):
        if self._name == SCALE:
            return x * gates[:, :, None, None].to(x.dtype), None
        if self._name == "squeeze_excite_gate":
            return x, self._squeeze(x, next(weights), functional)
        arguments, at = self._arguments.copy(), self._at
        arguments[0] = x
        arguments[at["packed"]] = next(weights)
        n, _, height, width = x.shape
        conv = self._conv
        if "padding" in at:
            padding = conv.padding_for(height, width)
            arguments[at["padding"]] = padding
            height, width = output_size(conv, height, width)
        if self._gated:
            arguments[at["gate"]] = gates
        if self.residual and "residual" in at:
            arguments[at["residual"]] = block_input
        if "dtype" in at:
            arguments[at["dtype"]] = x.dtype
        if functional:
            found = self._functional(*arguments)
            return found if isinstance(found, tuple) else (found, None)
        y = torch.empty(
            (n, self._out_channels, height, width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        if self._name == "depthwise_conv_gate":
            gates = torch.empty((n, self._out_channels), dtype=torch.float32, device=x.device)
            self._into(y, gates, *arguments)
            return y, gates
        self._into(y, *arguments)
        return y, None

    def _squeeze(self, x: Tensor, packed: Tensor, functional: bool) -> Tensor:
        """Gates of a map that no kernel of ours has summed."""
        sums = x.sum((2, 3), dtype=torch.float32)[:, None]
        arguments, at = self._arguments.copy(), self._at
        arguments[0] = sums
        arguments[at["packed"]] = packed
        arguments[at["count"]] = x.shape[2] * x.shape[3]
        if functional:
            return self._functional(*arguments)
        gates = torch.empty((x.shape[0], x.shape[1]), dtype=torch.float32, device=x.device)
        self._into(gates, *arguments)
        return gates


def bind(block: Block, dtype: torch.dtype, device: torch.device, backend: str | Backend) -> Program | None:
    """`block` with the weights that its modules have now, packed for storage `dtype` on `device`.

    None where nothing but the plain PyTorch reference could run it and `backend` is "auto": the block's own
    modules are plain PyTorch, too.

    Raises: RuntimeError where a backend asked for by name cannot serve; ValueError, TypeError as
        `effnet_fast.ops.pack`.
    """
    if not runs_native(block, dtype, device.type, backend):
        return None
    steps, packed = [], []
    # Compilers do not take a tensor that was made under inference mode.
    with torch.inference_mode(False), torch.no_grad():
        for call in calls_of(block):
            if call.operator == SCALE:
                steps.append(_Step(call, Backend.REFERENCE))
                continue
            chosen = backends.resolve(call.operator, backend, device_type=device.type, dtype=dtype)
            spatial, se = call.spatial, call.squeeze_excite
            packed.append(
                ops.pack(
                    call.operator,
                    *weights_of(call, dtype),
                    activation=se.activation if spatial is None else spatial.activation,
                    backend=chosen,
                )
            )
            steps.append(_Step(call, chosen))
    return Program(block, steps, packed)


def runs_native(block: Block, dtype: torch.dtype, device_type: str, backend: str | Backend) -> bool:
    """Whether `bind` makes a program; RuntimeError as there."""
    asked = backends.parse_backend(backend)
    return asked is Backend.REFERENCE or all(
        backends.resolve(call.operator, asked, device_type=device_type, dtype=dtype) is not Backend.REFERENCE
        for call in calls_of(block)
        if call.operator != SCALE
    )
