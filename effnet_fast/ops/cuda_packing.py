"""What the CUDA library leaves to Python: ``pack_<op>``, and the ``_into`` forms that take weights unpacked.

Packed weights are the arrays of :mod:`.device_weights`, one behind the other, each at a multiple of 64 bytes.
There is no header, since C++ would have to wait for the GPU to read it: what a tensor was packed for is in
its length (csrc/cuda/packed.h), which the library itself computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from effnet_fast import backends

from .device_weights import arrange, halves
from .schemas import LIBRARY, NAMESPACE, OPERATORS, Operator, overload, with_defaults
from .validation import check

_ALIGNMENT = 64


def _sections(row: Operator, weights: Sequence[Tensor | None], activation: str) -> list[Tensor]:
    """The arrays that the kernels read, in the order in which they are packed."""
    if row.name == "depthwise_conv_gate":
        depthwise = arrange(OPERATORS["depthwise_conv"], weights[:2], activation)
        return [*depthwise, *arrange(OPERATORS["squeeze_excite_gate"], weights[2:], activation)]
    return arrange(row, weights, activation)


def _halved(row: Operator, weights: Sequence[Tensor | None], activation: str) -> bool:
    return row.name != "squeeze_excite_gate" and halves(activation, weights[0].dtype)


@torch.no_grad()
def pack_weights(row: Operator, weights: Sequence[Tensor | None], activation: str) -> Tensor:
    """`weights` of `row`, in schema order, packed on their device for a call with this activation."""
    sections = _sections(row, weights, activation)
    length = torch.ops.effnet_fast.cuda_packed_length(
        row.name, weights[0].dtype, _halved(row, weights, activation), [s.nbytes for s in sections]
    )
    packed = torch.zeros(length, dtype=torch.uint8, device=sections[0].device)
    begin = 0
    for section in sections:
        packed[begin : begin + section.nbytes] = section.flatten().view(torch.uint8)
        begin += -(-section.nbytes // _ALIGNMENT) * _ALIGNMENT
    return packed


def _pack(row: Operator) -> Callable:
    def pack(*args) -> Tensor:
        *weights, activation, isa = args
        if isa != "auto":
            raise ValueError(f"{NAMESPACE}.{row.pack_name}: isa = {isa!r}, expected auto")
        return pack_weights(row, weights, activation)

    return pack


def _into(row: Operator) -> Callable:
    count = len(row.outputs)
    packed_as = OPERATORS[row.packed_as or row.name]
    packed_into = overload(row.dispatcher_name("packed_into"))

    def into(*args) -> None:
        given = with_defaults(row, "", args[count:])
        values = {p.name: value for p, value in zip(row.parameters, given, strict=True)}
        sizes, _, _ = check(row, "", given)
        values["packed"] = pack_weights(packed_as, [values[n] for n in row.weights], values["activation"])
        values.update({name: sizes[letter] for name, letter in row.geometry.items()})
        packed_into(*args[:count], *[values[p.name] for p in row.packed_parameters])

    return into


def register() -> None:
    """For every operator that the loaded CUDA library implements; once, after it is loaded."""
    for row in OPERATORS.values():
        if not backends.has_kernel(row.dispatcher_name("packed_into"), backends.Backend.CUDA):
            continue
        LIBRARY.impl(row.dispatcher_name("into"), _into(row), "CUDA")
        if row.packed_as is None:
            LIBRARY.impl(row.pack_name, _pack(row), "CUDA")
