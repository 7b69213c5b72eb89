"""Argument checks, once, for every operator, variant and backend.

:func:`check` binds the letters of a row's shapes (see :mod:`.schemas`) from the tensors of one call, so the
same pass that refuses bad input yields every size that allocation needs. ValueError for values, shapes and
devices, TypeError for types and dtypes; each names the operator, the argument, what was given and what is
allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .geometry import conv_output_size, output_dtype, output_shape, pool_tiles, single_dtype
from .schemas import ACTIVATIONS, GATES, NAMESPACE, STORAGE_DTYPES, Operator, TensorSpec

Sizes = dict[str, int]

_LETTERS = {
    "n": "N",
    "c": "C",
    "h": "H",
    "w": "W",
    "k": "k",
    "d": "d",
    "o": "Cout",
    "m": "expanded",
    "s": "squeezed",
    "oh": "OH",
    "ow": "OW",
    "t": "tiles",
    "1": "1",
}


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return " or ".join(dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in dtypes))


def _value_error(row: Operator, message: str) -> NoReturn:
    raise ValueError(f"{NAMESPACE}.{row.name}: {message}")


def _type_error(row: Operator, message: str) -> NoReturn:
    raise TypeError(f"{NAMESPACE}.{row.name}: {message}")


def _check_shape(row: Operator, name: str, tensor: Tensor, spec: TensorSpec, sizes: Sizes) -> None:
    letters = spec.shape
    # The matrix of a 1x1 convolution may come without its two trailing ones.
    if letters[-2:] == ("1", "1") and tensor.dim() == 2:
        letters = letters[:2]
    known = len(sizes)
    if tensor.dim() != len(letters):
        _shape_mismatch(row, name, tensor, spec, sizes, known)
    for letter, size in zip(letters, tensor.shape, strict=True):
        expected = 1 if letter == "1" else sizes.get(letter)
        if expected is None:
            sizes[letter] = size
        elif size != expected:
            _shape_mismatch(row, name, tensor, spec, sizes, known)


def _shape_mismatch(
    row: Operator, name: str, tensor: Tensor, spec: TensorSpec, sizes: Sizes, known: int
) -> NoReturn:
    """Only the first `known` sizes come from other tensors than this one."""
    wanted = ", ".join(_LETTERS[letter] for letter in spec.shape)
    given = [f"{_LETTERS[x]} = {size}" for x, size in list(sizes.items())[:known] if x in spec.shape]
    where = f" with {', '.join(given)}" if given else ""
    _value_error(row, f"{name} has shape {list(tensor.shape)}, expected [{wanted}]{where}")


def _check_dtype(row: Operator, name: str, tensor: Tensor, kind: str, storage: torch.dtype) -> None:
    dtype = tensor.dtype
    if kind == "storage":
        allowed: tuple[torch.dtype, ...] = (storage,)
    elif kind == "single":
        allowed = (single_dtype(storage),)
    elif kind == "bias":
        allowed = (torch.float32, storage)
    else:
        allowed = (torch.uint8, torch.float32, storage)
    if dtype not in allowed:
        source = "" if row.storage == name else f" (storage dtype {_names([storage])})"
        _type_error(row, f"{name} has dtype {_names([dtype])}, expected {_names(allowed)}{source}")


def _check_tensor(
    row: Operator,
    name: str,
    value: Any,
    spec: TensorSpec,
    storage: torch.dtype,
    device: torch.device,
    sizes: Sizes,
) -> None:
    if not isinstance(value, Tensor):
        _type_error(row, f"{name} must be a Tensor, got {type(value).__name__}")
    _check_dtype(row, name, value, spec.kind, storage)
    if value.device != device:
        _value_error(row, f"{name} is on {value.device}, the other tensors are on {device}")
    _check_shape(row, name, value, spec, sizes)


def _check_scalar(row: Operator, type_: str, name: str, value: Any) -> None:
    if type_ == "str":
        allowed = GATES if name == "gate" else ACTIVATIONS
        if value not in allowed:
            _value_error(row, f"{name} = {value!r}, expected one of {', '.join(allowed)}")
    elif type_ == "int":
        if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
            _type_error(row, f"{name} must be an int, got {type(value).__name__}")
        # A block without squeeze-excite says squeeze = 0.
        least = 0 if name == "squeeze" and row.name == "mbconv" else 1
        if value < least:
            _value_error(row, f"{name} = {value}, expected at least {least}")
    elif type_ == "int[4]":
        value = tuple(value) if isinstance(value, (list, tuple)) else value
        if not isinstance(value, tuple) or len(value) != 4:
            _value_error(row, f"{name} = {value!r}, expected four integers (top, left, bottom, right)")
        for side in value:
            if isinstance(side, bool) or not isinstance(side, (int, torch.SymInt)):
                _type_error(row, f"{name} must be integers, got {value!r}")
        if min(value) < 0:
            _value_error(row, f"{name} = {value}, expected no negative value")


def _storage_dtype(row: Operator, values: Mapping[str, Any]) -> torch.dtype:
    source = values[row.storage]
    if row.storage == "dtype":
        if source not in STORAGE_DTYPES:
            _type_error(row, f"dtype = {source}, expected {_names(STORAGE_DTYPES)}")
        return source
    if not isinstance(source, Tensor):
        _type_error(row, f"{row.storage} must be a Tensor, got {type(source).__name__}")
    allowed = STORAGE_DTYPES if row.tensors[row.storage].kind == "storage" else (torch.float32, torch.float64)
    if source.dtype not in allowed:
        _type_error(row, f"{row.storage} has dtype {_names([source.dtype])}, expected {_names(allowed)}")
    return source.dtype


def _bind_conv_output(row: Operator, values: Mapping[str, Any], sizes: Sizes) -> None:
    """Letters k (checked), oh, ow and t of a k x k convolution."""
    kernel, stride = sizes["k"], values["stride"]
    top, left, bottom, right = values["padding"]
    _check_odd(row, sizes, "k")
    oh = conv_output_size(sizes["h"], kernel, stride, top, bottom)
    ow = conv_output_size(sizes["w"], kernel, stride, left, right)
    if oh < 1 or ow < 1:
        _value_error(
            row,
            f"input of {sizes['h']} x {sizes['w']} with padding {(top, left, bottom, right)} is smaller than "
            f"the {kernel} x {kernel} kernel",
        )
    sizes["oh"], sizes["ow"], sizes["t"] = oh, ow, pool_tiles(oh, ow)


def _check_mbconv(row: Operator, values: Mapping[str, Any], sizes: Sizes) -> None:
    if "packed" not in values:
        if values["w_expand"] is None:
            if values["b_expand"] is not None:
                _value_error(row, "b_expand is given without w_expand")
            if sizes["m"] != sizes["c"]:
                _value_error(
                    row, f"w_dw has {sizes['m']} channels; without w_expand, expected C = {sizes['c']} of x"
                )
        if (values["w1"] is None) != (values["w2"] is None):
            _value_error(row, "w1 and w2 must be given together or not at all")
        if values["w1"] is None and not (values["b1"] is None and values["b2"] is None):
            _value_error(row, "b1 or b2 is given without w1 and w2")
    _check_residual(row, values, sizes)


def _check_residual(row: Operator, values: Mapping[str, Any], sizes: Sizes) -> None:
    if values["residual"] and (sizes["o"], sizes["oh"], sizes["ow"]) != (sizes["c"], sizes["h"], sizes["w"]):
        _value_error(
            row,
            f"residual = True needs an output like the input, got [C, H, W] = "
            f"{[sizes['c'], sizes['h'], sizes['w']]} in and {[sizes['o'], sizes['oh'], sizes['ow']]} out",
        )


def _check_stem_block(row: Operator, values: Mapping[str, Any], sizes: Sizes) -> None:
    _check_odd(row, sizes, "d")


def _check_odd(row: Operator, sizes: Sizes, letter: str) -> None:
    size = sizes.get(letter, 1)
    if size % 2 == 0:
        which = "depthwise kernel" if letter == "d" else "kernel"
        _value_error(row, f"{which} size {size} is even, expected an odd one")


_EXTRA: dict[str, Callable[[Operator, Mapping[str, Any], Sizes], None]] = {
    "mbconv": _check_mbconv,
    "fused_mbconv": _check_residual,
    "stem_block_sums": _check_stem_block,
    "stem_block": _check_stem_block,
}


def check(row: Operator, variant: str, args: Sequence[Any]) -> tuple[Sizes, torch.dtype, torch.device]:
    """Check the arguments of `row` (of its packed form where `variant` says so), in schema order.

    Returns the sizes bound to the letters of the row's shapes, the storage dtype and the device.
    """
    parameters = row.parameters_of(variant)
    values = {parameter.name: value for parameter, value in zip(parameters, args, strict=True)}
    storage = _storage_dtype(row, values)
    first = args[0]
    if not isinstance(first, Tensor):
        _type_error(row, f"{parameters[0].name} must be a Tensor, got {type(first).__name__}")
    device = first.device
    sizes: Sizes = {}
    later = []
    for parameter, value in zip(parameters, args, strict=True):
        name = parameter.name
        if not parameter.is_tensor:
            _check_scalar(row, parameter.type, name, value)
            if name in row.geometry:
                sizes[row.geometry[name]] = value
        elif name == "packed":
            _check_packed(row, value, device)
        elif value is None:
            if not parameter.optional:
                _type_error(row, f"{name} must be a Tensor, got None")
        elif "oh" in row.tensors[name].shape:
            later.append((name, value))
        else:
            _check_tensor(row, name, value, row.tensors[name], storage, device, sizes)
    # A batch may be empty; a map, a filter bank or a squeeze may not.
    for letter, size in sizes.items():
        if letter != "n" and size < 1 and not (letter == "s" and row.name == "mbconv"):
            _value_error(row, f"{_LETTERS[letter]} = {size}, expected at least 1")
    if "stride" in values:
        _bind_conv_output(row, values, sizes)
    for name, value in later:
        _check_tensor(row, name, value, row.tensors[name], storage, device, sizes)
    extra = _EXTRA.get(row.name)
    if extra is not None:
        extra(row, values, sizes)
    return sizes, storage, device


def check_weights(row: Operator, weights: Sequence[Any]) -> tuple[torch.dtype, torch.device]:
    """Check weights alone, as given to pack; returns their storage dtype and device."""
    sizes: Sizes = {}
    kinds = [row.tensors[name].kind for name in row.weights]
    leading = "storage" if "storage" in kinds else "single"
    source = next(
        (w for w, kind in zip(weights, kinds, strict=True) if kind == leading and isinstance(w, Tensor)), None
    )
    if source is None:
        _type_error(row, f"{row.weights[0]} must be a Tensor, got {type(weights[0]).__name__}")
    storage = source.dtype
    allowed = STORAGE_DTYPES if leading == "storage" else (torch.float32, torch.float64)
    if storage not in allowed:
        name = row.weights[kinds.index(leading)]
        _type_error(row, f"{name} has dtype {_names([storage])}, expected {_names(allowed)}")
    optional = {parameter.name for parameter in row.parameters if parameter.optional}
    for name, weight in zip(row.weights, weights, strict=True):
        if weight is not None:
            _check_tensor(row, name, weight, row.tensors[name], storage, source.device, sizes)
        elif name not in optional:
            _type_error(row, f"{name} must be a Tensor, got None")
    for letter in ("k", "d"):
        _check_odd(row, sizes, letter)
    return storage, source.device


def _check_packed(row: Operator, value: Any, device: torch.device) -> None:
    if not isinstance(value, Tensor):
        _type_error(row, f"packed must be a Tensor, got {type(value).__name__}")
    if value.dtype != torch.uint8:
        _type_error(row, f"packed has dtype {_names([value.dtype])}, expected uint8 from ops.pack")
    if value.dim() != 1:
        _value_error(row, f"packed has shape {list(value.shape)}, expected [bytes] from ops.pack")
    if value.device != device:
        _value_error(row, f"packed is on {value.device}, the other tensors are on {device}")


def check_outputs(
    row: Operator, outputs: Sequence[Any], sizes: Sizes, storage: torch.dtype, device: torch.device
) -> None:
    """Check the tensors that an ``_into`` form writes: shape, dtype, device, dense channels_last memory."""
    if len(outputs) != len(row.outputs):
        _value_error(
            row, f"got {len(outputs)} outputs, expected {len(row.outputs)}: {', '.join(row.outputs)}"
        )
    for (name, spec), tensor in zip(row.outputs.items(), outputs, strict=True):
        if not isinstance(tensor, Tensor):
            _type_error(row, f"output {name} must be a Tensor, got {type(tensor).__name__}")
        shape, dtype = output_shape(spec, sizes), output_dtype(spec, storage)
        if list(tensor.shape) != shape:
            _value_error(row, f"output {name} has shape {list(tensor.shape)}, expected {shape}")
        if tensor.dtype != dtype:
            _type_error(row, f"output {name} has dtype {_names([tensor.dtype])}, expected {_names([dtype])}")
        if tensor.device != device:
            _value_error(row, f"output {name} is on {tensor.device}, the other tensors are on {device}")
        wanted = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        if not tensor.is_contiguous(memory_format=wanted):
            layout = "channels_last" if len(shape) == 4 else "contiguous"
            _value_error(row, f"output {name} has strides {tuple(tensor.stride())}, expected {layout} memory")
