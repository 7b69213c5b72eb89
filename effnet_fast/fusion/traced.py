"""Fused modules inside torch.compile and torch.export.

`torch.compile` sees one operator, `effnet_fast::run_fused(x, sources, number)`: the number stands for a fused
module of this process, the sources are the tensors that its weights are made of, so that the graph depends on
them and a compiled function sees new weights. `torch.export` gets the operators themselves with the packed
weights as constants, which work in another process.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effnet_fast.fusion.dtypes import storage_dtype
from effnet_fast.fusion.state import State, states, tell
from effnet_fast.ops.schemas import LIBRARY, overload

__all__ = ["run_fused", "traced"]

LIBRARY.define(
    "run_fused(Tensor x, Tensor[] sources, int number) -> Tensor",
    # Unsafe: weights that have changed are packed, which must not happen while a compiler captures a graph.
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe),
)


def traced(module: nn.Module, state: State, x: Tensor) -> Tensor | None:
    """What stands for `module(x)` in a graph, None where its own modules do."""
    if not _is_exporting():
        found = _asked(module, state.number, x)
        return None if found is None else run_fused(x.to(found[0]), found[1], state.number).to(found[2])
    if torch.compiler.is_dynamo_compiling():
        _tell("fused modules are exported unfused by strict=True: use torch.export.export(..., strict=False)")
        return None
    found = _asked(module, state.number, x)
    program = None if found is None else state.exported(found[0])
    if program is None:
        _tell(
            "a fused module is exported unfused: gradients are enabled (export under torch.no_grad()), its "
            "weights are not packed for this dtype or were changed since (call effnet_fast.repack(model) "
            "before), or it has hooks inside"
        )
        return None
    return program(x.to(found[0]), functional=True).to(found[2])


def _asked(module: nn.Module, number: int, x: Tensor) -> tuple[torch.dtype, list[Tensor], torch.dtype] | None:
    """The dtype of maps, the tensors that weights are made of, and the result's dtype."""
    names = _names(number)
    # A compiler guards what is asked here.
    if not names or x.dim() != 4 or any(each.training for each in module.modules()):
        return None
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    sources = [tensors[name] for name in names]
    if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in sources)):
        return None
    dtype = storage_dtype(x, sources[0])
    if dtype is None or x.device != sources[0].device:
        return None
    given = _result_dtype(number, x.shape[1], dtype, x.dtype, x.device.type)
    return None if given is None else (dtype, sources, given)


def _names(number: int) -> tuple[str, ...]:
    """Names of the tensors that the module's weights are made of; none where its own modules must run."""
    state = states.get(number)
    return () if state is None else state.names()


def _result_dtype(
    number: int, channels: int, maps: torch.dtype, given: torch.dtype, device_type: str
) -> torch.dtype | None:
    return states[number].result_dtype(channels, maps, given, device_type)


def _is_exporting() -> bool:
    """Asked outside of what torch.compile traces, where it is taken for true."""
    return torch.compiler.is_exporting()


def _tell(message: str) -> None:
    tell(message)


# All that torch.compiler.assume_constant_result does; but that imports the compiler: seconds at every start.
for _function in (_names, _result_dtype, _is_exporting, _tell):
    _function._dynamo_marked_constant = True


def _state(number: int) -> State:
    state = states.get(number)
    if state is None:
        raise RuntimeError(
            "this compiled function calls a fused module that is not in this process (any more); to take a "
            "fused model to another process use torch.export"
        )
    return state


def _run(x: Tensor, sources: list[Tensor], number: int) -> Tensor:
    return _state(number).run_with(x, sources)


def _fake(x: Tensor, sources: list[Tensor], number: int) -> Tensor:
    return torch.empty(
        (x.shape[0], *_state(number).output_shape(*x.shape[2:])),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


LIBRARY.impl("run_fused", _run, "CompositeExplicitAutograd")
torch.library.register_fake("effnet_fast::run_fused", _fake, lib=LIBRARY)
run_fused = overload("run_fused")
