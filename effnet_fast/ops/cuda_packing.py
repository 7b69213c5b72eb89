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
from .expand_weights import has_layout, pack_expand, pack_taps
from .schemas import LIBRARY, NAMESPACE, OPERATORS, Operator, overload, with_defaults
from .validation import check

_ALIGNMENT = 64


def expand_sections(
    weights: Sequence[Tensor | None], activation: str, expand_activation: str
) -> list[Tensor]:
    """Those of ``expand_depthwise``: its parts', for calls composed of them, then the fused kernel's.

    The latter are empty where it has no kernel for such layers (csrc/cuda/expand_depthwise_launch.h); a call
    may also be composed for its stride or its maps, which are not known here.
    """
    w_expand, b_expand, w_dw, b_dw = weights
    expand, expand_bias = arrange(OPERATORS["pointwise_conv"], [w_expand, b_expand], expand_activation)
    matrix, bias = arrange(OPERATORS["depthwise_conv"], [w_dw, b_dw], activation)
    kernel, channels = w_dw.shape[-1], w_dw.shape[0]
    fused = [expand.new_empty(0), expand.new_empty(0)]
    same = (expand_activation == "silu") == (activation == "silu")
    if same and has_layout(expand.dtype, expand.shape[1], channels, kernel):
        taps = matrix.t().reshape(channels, 1, kernel, kernel)
        fused = [pack_expand(expand, expand_bias), pack_taps(taps)]
    return [expand, expand_bias, matrix, bias, *fused]


def stem_block_sections(weights: Sequence[Tensor | None], activation: str) -> list[Tensor]:
    """Those of ``stem_block_sums`` and, with a projection, ``stem_block``: their parts', in order."""
    stem = arrange(OPERATORS["stem_conv"], weights[:2], activation)
    depthwise = arrange(OPERATORS["depthwise_conv"], weights[2:4], activation)
    project = weights[4:] and arrange(OPERATORS["pointwise_conv"], weights[4:], "identity")
    return [*stem, *depthwise, *project]


def _sections(
    row: Operator, weights: Sequence[Tensor | None], activation: str, expand_activation: str
) -> list[Tensor]:
    """The arrays that the kernels read, in the order in which they are packed."""
    if row.name == "expand_depthwise":
        return expand_sections(weights, activation, expand_activation)
    if row.name == "depthwise_conv_gate":
        depthwise = arrange(OPERATORS["depthwise_conv"], weights[:2], activation)
        return [*depthwise, *arrange(OPERATORS["squeeze_excite_gate"], weights[2:], activation)]
    if row.name in ("stem_block_sums", "stem_block"):
        return stem_block_sections(weights, activation)
    return arrange(row, weights, activation)


def _halved(row: Operator, weights: Sequence[Tensor | None], activation: str) -> bool:
    return row.name != "squeeze_excite_gate" and halves(activation, weights[0].dtype)


@torch.no_grad()
def pack_weights(
    row: Operator, weights: Sequence[Tensor | None], activation: str, expand_activation: str = "identity"
) -> Tensor:
    """`weights` of `row`, in schema order, packed on their device for a call with these activations."""
    sections = _sections(row, weights, activation, expand_activation)
    kind = row.name
    if kind == "expand_depthwise" and halves(expand_activation, weights[0].dtype):
        kind = "expand_silu_depthwise"
    length = torch.ops.effnet_fast.cuda_packed_length(
        kind, weights[0].dtype, _halved(row, weights, activation), [s.nbytes for s in sections]
    )
    packed = torch.zeros(length, dtype=torch.uint8, device=sections[0].device)
    begin = 0
    for section in sections:
        packed[begin : begin + section.nbytes] = section.flatten().view(torch.uint8)
        begin += -(-section.nbytes // _ALIGNMENT) * _ALIGNMENT
    return packed


def _pack(row: Operator) -> Callable:
    count = len(row.weights)

    def pack(*args) -> Tensor:
        # One activation, or two: that of the expansion first.
        weights, activations, isa = args[:count], args[count:-1], args[-1]
        if isa != "auto":
            raise ValueError(f"{NAMESPACE}.{row.pack_name}: isa = {isa!r}, expected auto")
        return pack_weights(row, weights, *reversed(activations))

    return pack


def _into(row: Operator) -> Callable:
    count = len(row.outputs)
    packed_as = OPERATORS[row.packed_as or row.name]
    packed_into = overload(row.dispatcher_name("packed_into"))

    def into(*args) -> None:
        given = with_defaults(row, "", args[count:])
        values = {p.name: value for p, value in zip(row.parameters, given, strict=True)}
        sizes, _, _ = check(row, "", given)
        activations = [values[name] for name in ("activation", "expand_activation") if name in values]
        values["packed"] = pack_weights(packed_as, [values[n] for n in row.weights], *activations)
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
