"""The Triton backend's dispatcher kernels: ``pack_<op>_triton``, ``<op>_into_triton`` and its packed form.

Derived from the table for every operator that has a module in :mod:`effnet_fast.triton_kernels`; the others
are composed of these. Such a module says which kernels to launch for a call, and knows nothing of PyTorch's
dispatcher. It is imported, and Triton with it, when an operator is first called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from effnet_fast import backends, native, triton_kernels

from . import containers
from .device_weights import arrange, arranged_shape
from .schemas import LIBRARY, OPERATORS, Operator, with_defaults
from .validation import check

TWIN = backends.twin(backends.Backend.TRITON)


def _label(row: Operator, activation: str) -> str:
    """What a packed tensor is for: weights in front of a SiLU differ, those of squeeze-excite do not."""
    folded = "" if row.name == "squeeze_excite_gate" else ":silu" if activation == "silu" else ":plain"
    return f"{row.pack_name}{TWIN}{folded}"


def _module(row: Operator):
    reason = native.reason("triton")
    if reason:
        raise RuntimeError(f"effnet_fast.{row.name}: backend triton cannot serve this call: {reason}")
    return importlib.import_module(f"effnet_fast.triton_kernels.{row.name}")


def _pack(row: Operator) -> Callable:
    def pack(*args) -> Tensor:
        *weights, activation, isa = args
        if isa != "auto":
            raise ValueError(f"effnet_fast.{row.pack_name}{TWIN}: isa = {isa!r}, expected auto")
        with torch.no_grad():
            arranged = arrange(row, weights, activation)
        return containers.write(containers.TRITON, _label(row, activation), arranged)

    return pack


def _launch(row: Operator, outputs, arguments, weights) -> None:
    """Launch what serves packed-order `arguments`, in which `weights` stand for the packed tensor."""
    at = [parameter.name for parameter in row.packed_parameters].index("packed")
    arguments = [*arguments[:at], weights, *arguments[at + 1 :]]
    triton_kernels.serve(_module(row), outputs, arguments)


def _packed_into(row: Operator) -> Callable:
    count = len(row.outputs)
    first = row.parameters[0].name
    channels_at = row.tensors[first].shape.index("c")

    def packed_into(*args) -> None:
        given = with_defaults(row, "packed", args[count:])
        values = {p.name: value for p, value in zip(row.packed_parameters, given, strict=True)}
        label = _label(row, values["activation"])
        weights = containers.read(values["packed"], containers.TRITON, label)
        sizes = {letter: values[name] for name, letter in row.geometry.items()}
        expected = arranged_shape(row, sizes | {"c": given[0].shape[channels_at]})
        storage = values["dtype"] if row.storage == "dtype" else given[0].dtype
        if weights[0].dtype != storage:
            raise TypeError(
                f"effnet_fast.{row.name}: packed was made for dtype {weights[0].dtype}, "
                f"the call needs {storage}"
            )
        if weights[0].shape != expected:
            raise ValueError(
                f"effnet_fast.{row.name}: packed was made for weights {list(weights[0].shape)}, "
                f"the call needs {list(expected)}"
            )
        _launch(row, args[:count], given, weights)

    return packed_into


def _into(row: Operator) -> Callable:
    count = len(row.outputs)

    def into(*args) -> None:
        given = with_defaults(row, "", args[count:])
        values = {p.name: value for p, value in zip(row.parameters, given, strict=True)}
        sizes, _, _ = check(row, "", given)
        with torch.no_grad():
            weights = arrange(row, [values[name] for name in row.weights], values["activation"])
        values.update({name: sizes[letter] for name, letter in row.geometry.items()}, packed=None)
        _launch(row, args[:count], [values[p.name] for p in row.packed_parameters], weights)

    return into


def _register() -> None:
    key = backends.device_type(backends.Backend.TRITON).upper()
    for name in triton_kernels.OPERATORS:
        row = OPERATORS[name]
        LIBRARY.impl(row.dispatcher_name("into", TWIN), _into(row), key)
        LIBRARY.impl(row.dispatcher_name("packed_into", TWIN), _packed_into(row), key)
        if row.packed_as is None:
            LIBRARY.impl(row.pack_name + TWIN, _pack(row), key)


_register()
