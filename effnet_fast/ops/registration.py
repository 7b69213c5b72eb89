"""Dispatcher kernels that no backend writes, derived from the table.

- ``<op>`` and ``<op>_packed``: check, allocate by the shared geometry, call the ``_into`` form.
- ``<op>_into`` and ``<op>_packed_into``: the floor under every backend, used where a loaded library has no
  kernel for the tensors' device: the composition of other operators where there is one, else the reference.
- a guard on the Autograd key of each: these operators have no backward, so an input that requires grad is
  refused instead of being dropped from the graph silently.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import containers
from .composition import COMPOSITIONS
from .forms import reference_form
from .geometry import allocate, dense
from .schemas import LIBRARY, NAMESPACE, OPERATORS, TWINS, VARIANTS, Operator, overload, with_defaults
from .validation import check


def _functional(row: Operator, variant: str, twin: str) -> Callable:
    into_variant = f"{variant}_into" if variant else "into"
    into = overload(row.dispatcher_name(into_variant, twin))
    reference_into = reference_form(row.name, into_variant)

    def functional(*args):
        given = with_defaults(row, variant, args)
        sizes, storage, device = check(row, variant, given)
        outputs = allocate(row, sizes, storage, device)
        # Kernels compute in float32; float64 is the reference's own.
        if storage == torch.float64:
            reference_into(*outputs, *given)
        else:
            into(*outputs, *dense(row, variant, given))
        return outputs if len(outputs) > 1 else outputs[0]

    return functional


def _floor(row: Operator, variant: str, twin: str) -> Callable:
    from_reference = reference_form(row.name, variant)
    composition = COMPOSITIONS.get((row.name, variant))
    count = len(row.outputs)
    packed_at = [parameter.name for parameter in row.packed_parameters].index("packed")

    def composed(given: tuple) -> bool:
        if composition is None or given[0].dtype == torch.float64:
            return False
        return variant == "into" or containers.kind_of(given[count + packed_at]) == containers.PARTS

    def call(op: str, part_variant: str) -> Callable:
        return overload(OPERATORS[op].dispatcher_name(part_variant, twin))

    def floor(*args) -> None:
        given = (*args[:count], *with_defaults(row, variant, args[count:]))
        with torch.no_grad():
            if composed(given):
                composition(call, *given)
            else:
                from_reference(*given)

    return floor


def _autograd_guard(row: Operator, variant: str, twin: str) -> Callable:
    name = row.dispatcher_name(variant, twin)
    target = overload(name)
    written = len(row.outputs) if variant.endswith("into") else 0

    def guard(keyset, *args, **kwargs):
        if torch.is_grad_enabled():
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor) and value.requires_grad:
                    raise RuntimeError(
                        f"{NAMESPACE}::{name} has no backward, and an input requires grad: call the "
                        f"differentiable effnet_fast.ops.{row.name}, or run under torch.no_grad() or "
                        "torch.inference_mode()"
                    )
        with torch._C._AutoDispatchBelowAutograd():
            result = target.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)
        for value in args[:written]:
            if not value.is_inference():
                torch.autograd.graph.increment_version(value)
        return result

    return guard


def _register() -> None:
    for row in OPERATORS.values():
        for twin in TWINS:
            for variant in VARIANTS:
                name = row.dispatcher_name(variant, twin)
                kernel = (_floor if variant.endswith("into") else _functional)(row, variant, twin)
                LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
                LIBRARY.impl(name, _autograd_guard(row, variant, twin), "Autograd", with_keyset=True)


_register()
