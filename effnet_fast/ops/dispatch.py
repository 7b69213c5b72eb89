"""What every public operator does with its arguments: autocast, checks, choice of backend, gradients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effnet_fast import backends

from .forms import REFERENCE, store
from .geometry import allocate, dense
from .handles import handle
from .schemas import OPERATORS, Operator
from .validation import check, check_outputs

Padding = int | Sequence[int] | None

# Autocast leaves float64 alone.
AUTOCAST_FROM = (torch.float32, torch.float16, torch.bfloat16)

_logger = logging.getLogger("effnet_fast")
_logged: set[tuple[str, str]] = set()


def four_sided(padding: Padding, weight: Tensor) -> Sequence[int]:
    """`padding` as (top, left, bottom, right): None is k // 2 on every side, a pair is (height, width)."""
    if padding is None:
        half = weight.shape[-1] // 2 if isinstance(weight, Tensor) and weight.dim() else 0
        return (half, half, half, half)
    if isinstance(padding, int):
        return (padding, padding, padding, padding)
    if isinstance(padding, Sequence) and len(padding) == 2:
        return (*padding, *padding)
    return padding


def autocast_dtype(*tensors: Any) -> torch.dtype | None:
    """The dtype that autocast asks for on the device of the first tensor, or None outside of autocast."""
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            kind = tensor.device.type
            return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return None


def _cast(row: Operator, args: Sequence[Any], dtype: torch.dtype) -> list[Any]:
    """Activations and weights to `dtype` (an explicit dtype argument wins), the rest to float32."""
    if row.storage == "dtype":
        dtype = args[-1]
    cast = []
    for parameter, value in zip(row.parameters, args, strict=True):
        spec = row.tensors.get(parameter.name)
        if isinstance(value, Tensor) and spec.kind != "image" and value.dtype in AUTOCAST_FROM:
            value = value.to(dtype if spec.kind == "storage" else torch.float32)
        cast.append(value)
    return cast


def _needs_grad(args: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in args
    )


def _log_reference(op: str, device_type: str) -> None:
    if (op, device_type) not in _logged:
        _logged.add((op, device_type))
        _logger.info("%s on %s runs the plain PyTorch reference", op, device_type)


def call(
    op: str,
    args: Sequence[Any],
    backend: str | backends.Backend,
    out: Tensor | Sequence[Tensor] | None = None,
) -> Any:
    """Run public operator `op` on schema-ordered `args`; into `out` where it is given."""
    row = OPERATORS[op]
    dtype = autocast_dtype(*args)
    if dtype is not None:
        args = _cast(row, args, dtype)
    sizes, storage, device = check(row, "", args)
    chosen = backends.resolve(op, backend, device_type=device.type, dtype=storage)
    needs_grad = _needs_grad(args)
    if out is None and (needs_grad or chosen is backends.Backend.REFERENCE):
        if not torch.compiler.is_compiling():
            _log_reference(op, device.type)
        return REFERENCE[op](*args)
    if out is None and torch.compiler.is_compiling():
        # One functional node in the graph; its fake and its kernel allocate.
        return handle(op, "", chosen)(*args)
    if out is None:
        outputs: Sequence[Tensor] = allocate(row, sizes, storage, device)
    else:
        if needs_grad:
            raise RuntimeError(
                f"effnet_fast.{op}: out= does not support autograd, and an input requires grad"
            )
        outputs = (out,) if isinstance(out, Tensor) else out
        check_outputs(row, outputs, sizes, storage, device)
    if chosen is backends.Backend.REFERENCE:
        store(row, outputs, REFERENCE[op](*args))
    else:
        handle(op, "into", chosen)(*outputs, *dense(row, "into", args))
    return tuple(outputs) if len(outputs) > 1 else outputs[0]
