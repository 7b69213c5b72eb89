"""What a network of our operators needs to get through Inductor: PyTorch 2.11 stumbles over two things.

- AOTInductor gives a custom operator another ScalarType than the one that was exported (float64 for float32,
  float32 for float16: pytorch/pytorch#169157, repaired after 2.11). The operators that read images have such
  an argument, so they get a form whose dtype is a string.
- Where Inductor meets an operator for the first time, it prints the operator's inputs, with their inputs, and
  so on, into a message that nobody reads. A block of ours makes that four times as long: 22 s for the head
  after 8 blocks, days after the 16 of B0. The names on its list of known fallbacks are not printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from effnet_fast import backends
from effnet_fast.backends import Backend
from effnet_fast.ops.schemas import LIBRARY, NAMESPACE, OPERATORS, TWINS, Operator, operator, overload

__all__ = ["exportable"]

_STEMS = [row for row in OPERATORS.values() if row.storage == "dtype"]
_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}
_FALLBACKS = [
    f"{NAMESPACE}::{row.dispatcher_name('packed', twin)}" for row in OPERATORS.values() for twin in TWINS
]


def _name(row: Operator, twin: str) -> str:
    return row.dispatcher_name("packed_named", twin)


def exportable(name: str, backend: Backend) -> Callable[..., Tensor]:
    """The dispatcher operator of ``<name>_packed`` for a native `backend`, with ``str(dtype)`` for dtype.

    `name` is that of an operator that reads images: stem_conv, stem_block_sums or stem_block.
    """
    return overload(_name(operator(name), backends.twin(backend)))


def _kernel(row: Operator, twin: str) -> Callable[..., Tensor]:
    stem = overload(row.dispatcher_name("packed", twin))

    def kernel(*args) -> Tensor:
        *rest, dtype = args
        if dtype not in _DTYPES:
            raise TypeError(
                f"{NAMESPACE}.{_name(row, twin)}: dtype = {dtype!r}, expected {', '.join(map(repr, _DTYPES))}"
            )
        return stem(*rest, _DTYPES[dtype])

    return kernel


def _fake(row: Operator, twin: str) -> Callable[..., Tensor]:
    kernel = _kernel(row, twin)

    def fake(*args) -> Tensor:
        # Every compilation begins with fake tensors through the stem, and Inductor is imported by then.
        # Importing it here would cost everyone seconds.
        lowering = sys.modules.get("torch._inductor.lowering")
        known = getattr(lowering, "FALLBACK_ALLOW_LIST", None)
        if known is not None:
            known.update(_FALLBACKS)
        return kernel(*args)

    return fake


def _autograd_guard(row: Operator, twin: str) -> Callable[..., Tensor]:
    target = overload(_name(row, twin))

    def guard(keyset, image, *args) -> Tensor:
        if image.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{NAMESPACE}::{_name(row, twin)} has no backward, and the images require grad: detach "
                "them, or run under torch.no_grad()"
            )
        with torch._C._AutoDispatchBelowAutograd():
            return target.redispatch(keyset & torch._C._after_autograd_keyset, image, *args)

    return guard


def _register(row: Operator, twin: str) -> None:
    name, schema = _name(row, twin), row.schema("packed").replace("ScalarType dtype", "str dtype")
    LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    # An overload is looked up once its name is defined.
    LIBRARY.impl(name, _kernel(row, twin), "CompositeExplicitAutograd")
    LIBRARY.impl(name, _autograd_guard(row, twin), "Autograd", with_keyset=True)
    torch.library.register_fake(f"{NAMESPACE}::{name}", _fake(row, twin), lib=LIBRARY)


for _row in _STEMS:
    for _twin in TWINS:
        _register(_row, _twin)
