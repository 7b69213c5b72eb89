"""A folded network as JSON and named tensors, and back: dataclasses by their fields, and no other classes.

    a dataclass   {"class": its name, field: value, ...}
    a tuple       [value, ...]
    a tensor      {"tensor": its path, such as "blocks.3.expand.weight", "dtype": ..., "shape": ...}
    the rest      itself: text, number, boolean, None

A new kind of block in `effnet_fast.inference.folding` is stored without a change here.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from effnet_fast.inference import folding
from effnet_fast.inference.folding import FoldedNetwork

__all__ = ["decode_network", "describe", "encode_network", "listed"]


def encode_network(network: FoldedNetwork) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The structure of `network` as JSON values, and CPU copies of its tensors by the names used there.

    Raises: TypeError for a part of another kind, ValueError for a tensor on the meta device; both name it.
    """
    if not isinstance(network, FoldedNetwork):
        raise TypeError(f"network must be a FoldedNetwork, got {type(network).__name__}")
    tensors: dict[str, Tensor] = {}
    return _encode(network, "", tensors), tensors


def decode_network(structure: Any, tensors: dict[str, Tensor]) -> FoldedNetwork:
    """The network of which `encode_network` made `structure` and `tensors`.

    Raises: ValueError or TypeError where the structure is malformed, names unknown classes, or does not name
        exactly these tensors with their dtypes and shapes.
    """
    remaining = dict(tensors)
    network = _decode(structure, remaining)
    if not isinstance(network, FoldedNetwork):
        raise ValueError(f"its structure is a {type(network).__name__}, not a FoldedNetwork")
    if remaining:
        raise ValueError(f"its structure does not name the tensors {listed(remaining)}")
    return network


def describe(tensor: Tensor) -> dict[str, Any]:
    """Dtype and shape as JSON values."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def listed(names: Iterable[str]) -> str:
    """The names, the first few of many."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; CPU copies of its tensors go to `tensors` by their paths."""
    if isinstance(value, Tensor):
        if value.is_meta:
            raise ValueError(f"network must have its weights in memory, got {path} on the meta device")
        # A copy in any case: safetensors refuses tensors that share memory.
        tensors[path] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": path, **describe(value)}
    if isinstance(value, tuple):
        return [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if type(value) in _classes().values():
        _check_fields(value)
        prefix = f"{path}." if path else ""
        parts = {f.name: _encode(getattr(value, f.name), prefix + f.name, tensors) for f in _fields(value)}
        return {"class": type(value).__name__, **parts}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path or 'network'} cannot be stored: it is a {type(value).__name__}")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `_encode` made `node` of; takes what it uses out of `tensors`. ValueError, TypeError."""
    if isinstance(node, list):
        return tuple(_decode(item, tensors) for item in node)
    if not isinstance(node, dict):
        return node
    if "class" in node:
        cls = _classes().get(node["class"])
        if cls is None:
            raise ValueError(f"its structure has a part of class {node['class']!r}, which is unknown")
        fields = {key: _decode(item, tensors) for key, item in node.items() if key != "class"}
        return _check_fields(cls(**fields))
    if set(node) != {"tensor", "dtype", "shape"}:
        raise ValueError(f"its structure has a part with {listed(node)}, neither a class nor a tensor")
    name = node["tensor"]
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise ValueError(f"its structure names the tensor {name!r}, which is not there or named twice")
    found = {"tensor": name, **describe(tensor)}
    if node != found:
        raise ValueError(
            f"its structure has {name} as {node['dtype']} {node['shape']}, "
            f"and the tensor is {found['dtype']} {found['shape']}"
        )
    return tensor


def _classes() -> dict[str, type]:
    """Every dataclass of the folding module, by name: what a file may contain."""
    classes = (value for value in vars(folding).values() if isinstance(value, type))
    return {cls.__name__: cls for cls in classes if dataclasses.is_dataclass(cls)}


def _fields(part: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(part) if field.init]


def _check_fields(part: Any) -> Any:
    """`part`, a dataclass, whose fields are of the types that its class declares; else TypeError."""
    hints = _hints(type(part))
    for field in _fields(part):
        value = getattr(part, field.name)
        if not _fits(value, hints[field.name]):
            cls, kind = type(part).__name__, type(value).__name__
            raise TypeError(f"{field.name} of a {cls} must be {field.type}, got a {kind}")
    return part


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`: a class, a union, or a tuple of them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1:] == (...,):
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is not int or not isinstance(value, bool))
