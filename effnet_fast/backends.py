"""Which implementation serves a call: names, what each can do, and the choice.

:func:`supports` answers with None or with the reason why not; :func:`resolve` turns a request into a backend.
Only ``auto`` may choose. A backend asked for by name that cannot serve a call raises and says why.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence

import torch

from effnet_fast import native

NAMESPACE = "effnet_fast"
ENVIRONMENT_VARIABLE = "EFFNET_FAST_BACKEND"

_LOW_PRECISION = (torch.float32, torch.float16, torch.bfloat16)


class Backend(str, enum.Enum):
    """``AUTO`` prefers a native backend; ``REFERENCE`` is plain PyTorch on any device."""

    AUTO = "auto"
    CUDA = "cuda"
    TRITON = "triton"
    CPU = "cpu"
    REFERENCE = "reference"

    def __str__(self) -> str:
        return self.value


_BY_NAME = {backend.value: backend for backend in Backend}

# What `auto` tries, best first, on each kind of device; elsewhere only the reference is left.
_PREFERENCE = {
    "cuda": (Backend.CUDA, Backend.TRITON, Backend.REFERENCE),
    "cpu": (Backend.CPU, Backend.REFERENCE),
}
# The kind of device that a backend's kernels read. Triton's interpreter reads a CPU's memory.
_DEVICES = {
    Backend.CPU: "cpu",
    Backend.CUDA: "cuda",
    Backend.TRITON: "cpu" if native.INTERPRETS_TRITON else "cuda",
}
_TWINS = {Backend.TRITON: "_triton"}

# Of each native backend: operator -> why it has no kernel for it, or None.
_missing: dict[Backend, dict[str, str | None]] = {backend: {} for backend in _DEVICES}


def parse_backend(name: str | Backend) -> Backend:
    """`name` as a :class:`Backend`; ValueError with the allowed names otherwise."""
    if isinstance(name, Backend):
        return name
    backend = _BY_NAME.get(name)
    if backend is None:
        raise ValueError(f"backend = {name!r}, expected one of {', '.join(_BY_NAME)}")
    return backend


def twin(backend: Backend) -> str:
    """What the names of `backend`'s dispatcher operators end with: see `TWINS` in ops/schemas.py."""
    return _TWINS.get(backend, "")


def device_type(backend: Backend) -> str:
    """The kind of device whose tensors `backend` reads; the reference reads any, so a CPU's too."""
    return _DEVICES.get(backend, "cpu")


def has_kernel(name: str, backend: Backend) -> bool:
    """Whether dispatcher operator `name` (without a twin's suffix) has a kernel of `backend`."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        f"{NAMESPACE}::{name}{twin(backend)}", _DEVICES[backend].upper()
    )


def _missing_kernel(op: str, backend: Backend, parts: Mapping[str, Sequence[str]]) -> str | None:
    """None when `op`, or every operator that it can be composed of, has a kernel."""
    if has_kernel(f"{op}_into", backend):
        return None
    if not parts[op]:
        return f"the {backend} backend has no kernel for {op}"
    for part in parts[op]:
        reason = _missing_kernel(part, backend, parts)
        if reason is not None:
            return reason
    return None


def inspect_libraries(parts: Mapping[str, Sequence[str]]) -> None:
    """Note what the loaded libraries implement; `parts` has every operator and what it can be composed of.

    :mod:`effnet_fast.ops` does this once, after loading them: a plain dictionary is all that a call, or a
    compiler tracing it, then has to look at.
    """
    for backend in _DEVICES:
        # Triton is imported when it is first asked for: see _not_importable.
        reason = "" if backend is Backend.TRITON else native.reason(backend.value)
        _missing[backend] = {op: reason or _missing_kernel(op, backend, parts) for op in parts}


def _not_importable() -> str:
    """Why Triton cannot be used, empty when it can; a compiler tracing a call takes the answer as it is."""
    return native.reason("triton")


# All that torch.compiler.assume_constant_result does; but that imports the compiler: seconds at every start.
_not_importable._dynamo_marked_constant = True


def supports(op: str, backend: str | Backend, *, device_type: str, dtype: torch.dtype) -> str | None:
    """None when `backend` serves operator `op` on tensors of this device type and storage dtype, else the
    reason.

    Raises ValueError for an unknown operator, for an unknown backend, and for ``auto``, which is a request
    and not an implementation.
    """
    known = _missing[Backend.CPU]
    if op not in known:
        raise ValueError(f"unknown operator {op!r}; known operators: {', '.join(known)}")
    backend = parse_backend(backend)
    if backend is Backend.AUTO:
        raise ValueError("supports() needs a backend by name, got 'auto'")
    if backend is Backend.REFERENCE:
        return None
    wanted = _DEVICES[backend]
    if device_type != wanted:
        return f"backend {backend} runs on {wanted} tensors, got {device_type}"
    if dtype not in _LOW_PRECISION:
        given = str(dtype).removeprefix("torch.")
        return f"backend {backend} computes in float32, float16 and bfloat16, got {given}"
    if backend is Backend.TRITON:
        return _not_importable() or _missing[backend][op]
    return _missing[backend][op]


def resolve(op: str, backend: str | Backend, *, device_type: str, dtype: torch.dtype) -> Backend:
    """The backend that will run `op`.

    ``auto`` takes ``EFFNET_FAST_BACKEND`` where it is set, else the first of the device's native backends
    that supports the call, else the reference. Raises RuntimeError with the reason when a backend asked for
    by name, here or in the environment, cannot serve the call.
    """
    asked = parse_backend(backend)
    source = f"backend {asked}"
    if asked is Backend.AUTO:
        override = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if override:
            asked = parse_backend(override)
            source = f"{ENVIRONMENT_VARIABLE}={asked}"
    if asked is not Backend.AUTO:
        reason = supports(op, asked, device_type=device_type, dtype=dtype)
        if reason is not None:
            raise RuntimeError(f"{NAMESPACE}.{op}: {source} cannot serve this call: {reason}")
        return asked
    for candidate in _PREFERENCE.get(device_type, ()):
        if supports(op, candidate, device_type=device_type, dtype=dtype) is None:
            return candidate
    return Backend.REFERENCE
