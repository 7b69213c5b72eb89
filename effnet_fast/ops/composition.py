"""Operators made of other operators, for a backend without a fused kernel of their own.

Each is written once, in its ``_into`` form, over the runs of weight arguments of its parts: ``(weight,
bias)`` in an unpacked call, ``(packed, kernel)`` in a packed one. `call(op, variant)` gives the parts'
implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import containers
from .geometry import conv_output_size, pool_tiles

Call = Callable[[str, str], Callable]
Run = tuple[Any, ...]


def _map_like(x: Tensor, channels: int) -> Tensor:
    n, _, h, w = x.shape
    return torch.empty((n, channels, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _new_single(x: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def _gate(call, into, y, gates, x, depthwise: Run, stride, padding, activation, se: Run, se_activation, gate):
    n, c, oh, ow = y.shape
    sums = _new_single(x, (n, pool_tiles(oh, ow), c))
    call("depthwise_conv_pool", into)(y, sums, x, *depthwise, stride, padding, activation)
    call("squeeze_excite_gate", into)(gates, sums, oh * ow, *se, se_activation, gate)


def _expand_depthwise(
    call, into, op, outputs, x, expand: Run, expand_activation, depthwise: Run, stride, padding, activation
):
    expanded = _map_like(x, outputs[0].shape[1])
    call("pointwise_conv", into)(expanded, x, *expand, expand_activation)
    call(op, into)(*outputs, expanded, *depthwise, stride, padding, activation)


def _mbconv(
    call, into, y, x, expanded: int, expand: Run | None, depthwise: Run, se: Run | None, project: Run,
    stride, padding, activation, se_activation, gate, residual,
):  # fmt: skip
    hidden = x
    if expand is not None:
        hidden = _map_like(x, expanded)
        call("pointwise_conv", into)(hidden, x, *expand, activation)
    filtered = _map_like(y, expanded)
    gates = None
    if se is None:
        call("depthwise_conv", into)(filtered, hidden, *depthwise, stride, padding, activation)
    else:
        gates = _new_single(x, (x.shape[0], expanded))
        call("depthwise_conv_gate", into)(
            filtered, gates, hidden, *depthwise, stride, padding, activation, *se, se_activation, gate
        )
    call("pointwise_conv", into)(y, filtered, *project, "identity", gates, x if residual else None)


def _fused_mbconv(
    call, into, y, x, expanded: int, expand: Run, project: Run, stride, padding, activation, residual
):
    hidden = _map_like(y, expanded)
    call("dense_conv", into)(hidden, x, *expand, stride, padding, activation, None)
    call("pointwise_conv", into)(y, hidden, *project, "identity", None, x if residual else None)


def _stem_block_sums(
    call, into, sums, image, channels: int, stem: Run, depthwise: Run, half: int, size: tuple[int, int],
    stride, padding, activation, mean, std, dtype,
):  # fmt: skip
    shape = (image.shape[0], channels, *size)
    stem_map = torch.empty(shape, dtype=dtype, device=image.device, memory_format=torch.channels_last)
    filtered = _map_like(stem_map, channels)
    call("stem_conv", into)(stem_map, image, *stem, stride, padding, activation, mean, std, dtype)
    call("depthwise_conv_pool", into)(filtered, sums, stem_map, *depthwise, 1, (half,) * 4, activation)


def _stem_block(
    call, into, y, image, channels: int, stem: Run, depthwise: Run, half: int, project: Run,
    stride, padding, activation, gate, mean, std, dtype,
):  # fmt: skip
    stem_map, filtered = _map_like(y, channels), _map_like(y, channels)
    call("stem_conv", into)(stem_map, image, *stem, stride, padding, activation, mean, std, dtype)
    call("depthwise_conv", into)(filtered, stem_map, *depthwise, 1, (half,) * 4, activation)
    call("pointwise_conv", into)(y, filtered, *project, "identity", gate, None)


def _stem_size(image: Tensor, kernel: int, stride: int, padding: Sequence[int]) -> tuple[int, int]:
    top, left, bottom, right = padding
    height, width = image.shape[2:]
    return (
        conv_output_size(height, kernel, stride, top, bottom),
        conv_output_size(width, kernel, stride, left, right),
    )


def depthwise_conv_gate_into(
    call: Call, y, gates, x, weight, bias, stride, padding, activation, w1, b1, w2, b2, se_activation, gate
):
    _gate(
        call,
        "into",
        y,
        gates,
        x,
        (weight, bias),
        stride,
        padding,
        activation,
        (w1, b1, w2, b2),
        se_activation,
        gate,
    )


def depthwise_conv_gate_packed_into(
    call: Call, y, gates, x, packed, kernel, stride, padding, activation, squeeze, se_activation, gate
):
    depthwise, se = containers.read(packed, containers.PARTS, "depthwise_conv_gate")
    _gate(
        call, "packed_into", y, gates, x, (depthwise, kernel), stride, padding, activation, (se, squeeze),
        se_activation, gate,
    )  # fmt: skip


def _expand_forms(op: str, count: int) -> tuple[Callable, Callable]:
    """The two forms of ``expand_depthwise`` and ``expand_depthwise_pool``; `op` is the depthwise part."""

    def unpacked(call: Call, *args):
        outputs = args[:count]
        x, w_expand, b_expand, expand_activation, w_dw, b_dw, *conv = args[count:]
        _expand_depthwise(
            call, "into", op, outputs, x, (w_expand, b_expand), expand_activation, (w_dw, b_dw), *conv
        )

    def from_packed(call: Call, *args):
        outputs = args[:count]
        x, packed, expanded, expand_activation, kernel, *conv = args[count:]
        expand, depthwise = containers.read(packed, containers.PARTS, "expand_depthwise")
        _expand_depthwise(
            call,
            "packed_into",
            op,
            outputs,
            x,
            (expand, expanded),
            expand_activation,
            (depthwise, kernel),
            *conv,
        )

    return unpacked, from_packed


def mbconv_into(
    call: Call, y, x, w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project, *rest
):
    expand = None if w_expand is None else (w_expand, b_expand)
    se = None if w1 is None else (w1, b1, w2, b2)
    _mbconv(call, "into", y, x, w_dw.shape[0], expand, (w_dw, b_dw), se, (w_project, b_project), *rest)


def mbconv_packed_into(call: Call, y, x, packed, expanded, out_channels, kernel, squeeze, *rest):
    expand, depthwise, project = containers.read(packed, containers.PARTS, "mbconv")
    _mbconv(
        call, "packed_into", y, x, expanded, None if expand is None else (expand, expanded),
        (depthwise, kernel), (squeeze,) if squeeze else None, (project, out_channels), *rest,
    )  # fmt: skip


def fused_mbconv_into(call: Call, y, x, w_expand, b_expand, w_project, b_project, *rest):
    _fused_mbconv(call, "into", y, x, w_expand.shape[0], (w_expand, b_expand), (w_project, b_project), *rest)


def fused_mbconv_packed_into(call: Call, y, x, packed, expanded, out_channels, kernel, *rest):
    expand, project = containers.read(packed, containers.PARTS, "fused_mbconv")
    _fused_mbconv(
        call, "packed_into", y, x, expanded, (expand, expanded, kernel), (project, out_channels), *rest
    )


def stem_block_sums_into(call: Call, sums, image, w_stem, b_stem, w_dw, b_dw, stride, padding, *rest):
    size = _stem_size(image, w_stem.shape[-1], stride, padding)
    _stem_block_sums(
        call, "into", sums, image, w_stem.shape[0], (w_stem, b_stem), (w_dw, b_dw), w_dw.shape[-1] // 2, size,
        stride, padding, *rest,
    )  # fmt: skip


def stem_block_sums_packed_into(
    call: Call, sums, image, packed, channels, kernel, filter, stride, padding, *rest
):
    stem, depthwise = containers.read(packed, containers.PARTS, "stem_block_sums")
    _stem_block_sums(
        call, "packed_into", sums, image, channels, (stem, channels, kernel), (depthwise, filter),
        filter // 2, _stem_size(image, kernel, stride, padding), stride, padding, *rest,
    )  # fmt: skip


def stem_block_into(call: Call, y, image, w_stem, b_stem, w_dw, b_dw, w_project, b_project, *rest):
    _stem_block(
        call, "into", y, image, w_stem.shape[0], (w_stem, b_stem), (w_dw, b_dw), w_dw.shape[-1] // 2,
        (w_project, b_project), *rest,
    )  # fmt: skip


def stem_block_packed_into(call: Call, y, image, packed, channels, out_channels, kernel, filter, *rest):
    stem, depthwise, project = containers.read(packed, containers.PARTS, "stem_block")
    _stem_block(
        call, "packed_into", y, image, channels, (stem, channels, kernel), (depthwise, filter), filter // 2,
        (project, out_channels), *rest,
    )  # fmt: skip


_EXPAND_INTO, _EXPAND_PACKED_INTO = _expand_forms("depthwise_conv", 1)
_EXPAND_POOL_INTO, _EXPAND_POOL_PACKED_INTO = _expand_forms("depthwise_conv_pool", 2)

#: (operator, variant) -> the composition, called as ``f(call, *outputs, *arguments)``.
COMPOSITIONS: dict[tuple[str, str], Callable] = {
    ("depthwise_conv_gate", "into"): depthwise_conv_gate_into,
    ("depthwise_conv_gate", "packed_into"): depthwise_conv_gate_packed_into,
    ("expand_depthwise", "into"): _EXPAND_INTO,
    ("expand_depthwise", "packed_into"): _EXPAND_PACKED_INTO,
    ("expand_depthwise_pool", "into"): _EXPAND_POOL_INTO,
    ("expand_depthwise_pool", "packed_into"): _EXPAND_POOL_PACKED_INTO,
    ("mbconv", "into"): mbconv_into,
    ("mbconv", "packed_into"): mbconv_packed_into,
    ("fused_mbconv", "into"): fused_mbconv_into,
    ("fused_mbconv", "packed_into"): fused_mbconv_packed_into,
    ("stem_block_sums", "into"): stem_block_sums_into,
    ("stem_block_sums", "packed_into"): stem_block_sums_packed_into,
    ("stem_block", "into"): stem_block_into,
    ("stem_block", "packed_into"): stem_block_packed_into,
}

Pack = Callable[..., Tensor]


def pack_parts(
    op: str, weights: Sequence[Tensor | None], activation: str, expand_activation: str, pack: Pack
):
    """One tensor with the parts of composed operator `op`, each packed by `pack(part, *weights)`."""
    parts: list[Tensor | None]
    if op == "depthwise_conv_gate":
        parts = [
            pack("depthwise_conv", *weights[:2], activation=activation),
            pack("squeeze_excite_gate", *weights[2:], activation=activation),
        ]
    elif op == "expand_depthwise":
        parts = [
            pack("pointwise_conv", *weights[:2], activation=expand_activation),
            pack("depthwise_conv", *weights[2:], activation=activation),
        ]
    elif op == "fused_mbconv":
        parts = [
            pack("dense_conv", *weights[:2], activation=activation),
            pack("pointwise_conv", *weights[2:], activation="identity"),
        ]
    elif op in ("stem_block_sums", "stem_block"):
        parts = [
            pack("stem_conv", *weights[:2], activation=activation),
            pack("depthwise_conv", *weights[2:4], activation=activation),
        ]
        if op == "stem_block":
            parts.append(pack("pointwise_conv", *weights[4:], activation="identity"))
    else:
        w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project = weights
        if w1 is None:
            depthwise = pack("depthwise_conv", w_dw, b_dw, activation=activation)
        else:
            depthwise = pack("depthwise_conv_gate", w_dw, b_dw, w1, b1, w2, b2, activation=activation)
        parts = [
            None if w_expand is None else pack("pointwise_conv", w_expand, b_expand, activation=activation),
            depthwise,
            pack("pointwise_conv", w_project, b_project, activation="identity"),
        ]
    return containers.write(containers.PARTS, op, parts)
