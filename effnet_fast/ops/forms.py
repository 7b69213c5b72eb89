"""The reference in all four variants of an operator, derived from its plain function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from . import containers, reference
from .schemas import OPERATORS, Operator, with_defaults
from .validation import check

REFERENCE: dict[str, Callable] = {name: getattr(reference, name) for name in OPERATORS}


def weights_label(row: Operator, activations: Sequence[str]) -> str:
    """What a packed tensor is for; reading it under another label is refused."""
    return ":".join([row.pack_name, *activations])


def unpack_arguments(row: Operator, args: Sequence[Any]) -> list[Any]:
    """The arguments of the unpacked form, from those of a packed call with reference weights."""
    values = {p.name: value for p, value in zip(row.packed_parameters, args, strict=True)}
    activations = [values[name] for name in ("expand_activation", "activation") if name in values]
    weights = containers.read(values["packed"], containers.WEIGHTS, weights_label(row, activations))
    values.update(zip(row.weights, weights, strict=True))
    unpacked = [values[p.name] for p in row.parameters]
    sizes, _, _ = check(row, "", unpacked)
    for name, letter in row.geometry.items():
        actual = sizes.get(letter, 0)
        if values[name] != actual:
            raise ValueError(
                f"effnet_fast.{row.name}: {name} = {values[name]}, but the packed weights have {actual}"
            )
    return unpacked


def store(row: Operator, outputs: Sequence[Tensor], results: Tensor | Sequence[Tensor]) -> None:
    """Copy what a plain function returned into given outputs, which must have its shape."""
    if isinstance(results, Tensor):
        results = (results,)
    for name, output, result in zip(row.outputs, outputs, results, strict=True):
        if output.shape != result.shape:
            raise ValueError(
                f"effnet_fast.{row.name}: output {name} has shape {list(output.shape)}, "
                f"expected {list(result.shape)}"
            )
        output.copy_(result)


def reference_form(op: str, variant: str) -> Callable:
    """The reference of `op` with the arguments of `variant`."""
    row, function = OPERATORS[op], REFERENCE[op]
    count = len(row.outputs)

    def into(*args) -> None:
        store(row, args[:count], function(*args[count:]))

    def packed(*args):
        return function(*unpack_arguments(row, with_defaults(row, "packed", args)))

    def packed_into(*args) -> None:
        store(row, args[:count], packed(*args[count:]))

    return {"": function, "into": into, "packed": packed, "packed_into": packed_into}[variant]
