"""Callables for an already chosen backend, without checks: what an engine calls once its plan is made."""

from __future__ import annotations

from collections.abc import Callable

from effnet_fast import backends

from .forms import reference_form
from .schemas import OPERATORS, TWINS, VARIANTS, operator, overload

# Plain dictionaries, so that a compiled caller sees constants.
NATIVE: dict[str, dict[tuple[str, str], Callable]] = {
    twin: {
        (op, variant): overload(row.dispatcher_name(variant, twin))
        for op, row in OPERATORS.items()
        for variant in VARIANTS
    }
    for twin in TWINS
}
REFERENCE_FORMS: dict[tuple[str, str], Callable] = {
    (op, variant): reference_form(op, variant) for op in OPERATORS for variant in VARIANTS
}


def handle(op: str, variant: str, backend: str | backends.Backend) -> Callable:
    """The implementation of `op` in `variant` for a resolved `backend`.

    `variant` is ``""``, ``"into"`` (outputs first, returns None), ``"packed"`` (weights from :func:`pack`) or
    ``"packed_into"``; arguments are those of the dispatcher schema, in its order. The ``into`` forms of a
    native backend read dense memory (maps channels_last, the rest contiguous) and refuse other memory; the
    other two copy what is not dense. A native backend's handle is the dispatcher operator, the reference's a
    plain Python function. ``handle(op, variant, "auto")`` is a
    ValueError: a request is turned into a backend by :func:`effnet_fast.backends.resolve`.
    """
    operator(op)
    if variant not in VARIANTS:
        raise ValueError(f"variant = {variant!r}, expected one of {', '.join(map(repr, VARIANTS))}")
    chosen = backends.parse_backend(backend)
    if chosen is backends.Backend.AUTO:
        raise ValueError("handle() needs a resolved backend, got 'auto'; see effnet_fast.backends.resolve")
    forms = REFERENCE_FORMS if chosen is backends.Backend.REFERENCE else NATIVE[backends.twin(chosen)]
    return forms[op, variant]
