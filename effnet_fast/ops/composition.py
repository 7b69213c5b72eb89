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
from .geometry import pool_tiles

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
