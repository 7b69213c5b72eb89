"""What a network of our operators needs to get through Inductor: PyTorch 2.11 stumbles over two things.

- AOTInductor gives a custom operator another ScalarType than the one that was exported (float64 for float32,
  float32 for float16: pytorch/pytorch#169157, repaired after 2.11). The stem is the one operator with such an
  argument, so it gets a form whose dtype is a string.
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
from effnet_fast.ops.schemas import LIBRARY, NAMESPACE, OPERATORS, TWINS, operator, overload

__all__ = ["exportable"]

_STEM = operator("stem_conv")
_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}
_FALLBACKS = [
    f"{NAMESPACE}::{row.dispatcher_name('packed', twin)}" for row in OPERATORS.values() for twin in TWINS
]


def _name(twin: str) -> str:
    return _STEM.dispatcher_name("packed_named", twin)


def exportable(backend: Backend) -> Callable[..., Tensor]:
    """The dispatcher operator of `stem_conv_packed` for a native `backend`, with ``str(dtype)`` for dtype."""
    return overload(_name(backends.twin(backend)))


def _kernel(twin: str) -> Callable[..., Tensor]:
    stem = overload(_STEM.dispatcher_name("packed", twin))

    def kernel(*args) -> Tensor:
        *rest, dtype = args
        if dtype not in _DTYPES:
            raise TypeError(
                f"{NAMESPACE}.{_name(twin)}: dtype = {dtype!r}, expected {', '.join(map(repr, _DTYPES))}"
            )
        return stem(*rest, _DTYPES[dtype])

    return kernel


def _fake(twin: str) -> Callable[..., Tensor]:
    kernel = _kernel(twin)

    def fake(*args) -> Tensor:
        # Every compilation begins with fake tensors through the stem, and Inductor is imported by then.
        # Importing it here would cost everyone seconds.
        lowering = sys.modules.get("torch._inductor.lowering")
        known = getattr(lowering, "FALLBACK_ALLOW_LIST", None)
        if known is not None:
            known.update(_FALLBACKS)
        return kernel(*args)

    return fake


def _autograd_guard(twin: str) -> Callable[..., Tensor]:
    target = overload(_name(twin))

    def guard(keyset, image, *args) -> Tensor:
        if image.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{NAMESPACE}::{_name(twin)} has no backward, and the images require grad: detach them, or "
                "run under torch.no_grad()"
            )
        with torch._C._AutoDispatchBelowAutograd():
            return target.redispatch(keyset & torch._C._after_autograd_keyset, image, *args)

    return guard


for _twin in TWINS:
    _schema = _STEM.schema("packed").replace("ScalarType dtype", "str dtype")
    LIBRARY.define(_name(_twin) + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(_name(_twin), _kernel(_twin), "CompositeExplicitAutograd")
    LIBRARY.impl(_name(_twin), _autograd_guard(_twin), "Autograd", with_keyset=True)
    torch.library.register_fake(f"{NAMESPACE}::{_name(_twin)}", _fake(_twin), lib=LIBRARY)
