"""Fake (meta) implementations of every operator, derived from the table: check, then allocate.

They run the same checks and the same geometry as the real operators, so what a compiled or exported graph
believes about shapes, dtypes and memory format is what the kernels do, symbolic sizes included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .geometry import allocate
from .schemas import LIBRARY, NAMESPACE, OPERATORS, TWINS, VARIANTS, Operator, with_defaults
from .validation import check, check_outputs


def _functional(row: Operator, variant: str) -> Callable:
    def fake(*args):
        outputs = allocate(row, *check(row, variant, with_defaults(row, variant, args)))
        return outputs if len(outputs) > 1 else outputs[0]

    return fake


def _into(row: Operator, variant: str) -> Callable:
    count = len(row.outputs)

    def fake(*args) -> None:
        bound = check(row, variant, with_defaults(row, variant, args[count:]))
        check_outputs(row, args[:count], *bound)

    return fake


def _pack(*args) -> Tensor:
    weight = next(value for value in args if isinstance(value, Tensor))
    return weight.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)


def _register() -> None:
    for row in OPERATORS.values():
        for twin in TWINS:
            for variant in VARIANTS:
                fake = (_into if variant.endswith("into") else _functional)(row, variant)
                name = row.dispatcher_name(variant, twin)
                torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
            if row.packed_as is None:
                torch.library.register_fake(f"{NAMESPACE}::{row.pack_name}{twin}", _pack, lib=LIBRARY)


_register()
