"""Which operators compute a block: a pure function of what its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effnet_fast.fusion.spec import Block, Conv, SqueezeExcite

__all__ = ["SCALE", "Call", "calls_of"]

#: No operator of ours but a product: what a squeeze-excite ends with where no 1x1 convolution follows.
SCALE = "scale"
#: `stem_conv` gathers the k x k taps of up to this many channels into one vector.
IMAGE_CHANNELS = 4

Parts = Sequence[Conv | SqueezeExcite]


@dataclass(frozen=True, eq=False)
class Call:
    """One operator.

    Attributes:
        operator: as in `effnet_fast.ops.schemas`, or SCALE.
        parts: what its weights are made of, in the order of its schema; None for what an `mbconv` lacks.
        residual: the operator adds the block's input.
        gated: it reads the gates of the call before it.
    """

    operator: str
    parts: tuple[Conv | SqueezeExcite | None, ...] = ()
    residual: bool = False
    gated: bool = False

    @property
    def convs(self) -> tuple[Conv, ...]:
        return tuple(part for part in self.parts if isinstance(part, Conv))

    @property
    def spatial(self) -> Conv | None:
        """The convolution whose stride, padding and kernel the operator is told."""
        return max(self.convs, key=lambda conv: (conv.is_depthwise, not conv.is_pointwise), default=None)

    @property
    def squeeze_excite(self) -> SqueezeExcite | None:
        return next((part for part in self.parts if isinstance(part, SqueezeExcite)), None)


def calls_of(block: Block) -> tuple[Call, ...]:
    """The calls that compute `block`.

    Where `block.residual` and the last call has no `residual`, the block's input is to be added afterwards.
    """
    parts, calls, at = block.parts, [], 0
    while at < len(parts):
        found, taken = _next(parts[at:], gated=bool(calls) and _gives_gates(calls[-1]))
        calls.extend(found)
        at += taken
    if calls and _gives_gates(calls[-1]):
        calls.append(Call(SCALE, gated=True))
    if block.residual and calls[-1].operator in _ADD_ANYTHING:
        calls[-1] = Call(calls[-1].operator, calls[-1].parts, True, calls[-1].gated)
    elif block.residual and len(calls) == 1 and calls[0].operator in _ADD_THEIR_INPUT:
        calls[0] = Call(calls[0].operator, calls[0].parts, True)
    return tuple(calls)


# Operators with a tensor to add, and those that add what they read, which must then be the block's input.
_ADD_ANYTHING = ("pointwise_conv", "dense_conv")
_ADD_THEIR_INPUT = ("mbconv", "fused_mbconv")


def _next(parts: Parts, gated: bool) -> tuple[list[Call], int]:
    """The calls for as many of `parts` as one operator takes, and how many those are."""
    first = parts[0]
    if gated:
        if isinstance(first, Conv) and first.is_pointwise:
            return [Call("pointwise_conv", (first,), gated=True)], 1
        scaled, taken = _next(parts, gated=False)
        return [Call(SCALE, gated=True), *scaled], taken
    if isinstance(first, SqueezeExcite):
        return [Call("squeeze_excite_gate", (first,))], 1
    whole = _mbconv(parts) or _fused_mbconv(parts)
    if whole is not None:
        return [whole], len([part for part in whole.parts if part is not None])
    if first.is_depthwise:
        if len(parts) > 1 and isinstance(parts[1], SqueezeExcite):
            return [Call("depthwise_conv_gate", (first, parts[1]))], 2
        return [Call("depthwise_conv", (first,))], 1
    if first.is_pointwise:
        return [Call("pointwise_conv", (first,))], 1
    return [Call("stem_conv" if first.in_channels <= IMAGE_CHANNELS else "dense_conv", (first,))], 1


def _mbconv(parts: Parts) -> Call | None:
    """Expansion (or none), depthwise convolution, squeeze-excite (or none), linear projection."""
    rest = list(parts)
    expand = rest.pop(0) if _is_pointwise(rest) else None
    if not rest or not isinstance(rest[0], Conv) or not rest[0].is_depthwise:
        return None
    depthwise = rest.pop(0)
    # The operator is told one activation for both.
    if expand is not None and expand.activation != depthwise.activation:
        return None
    squeeze = rest.pop(0) if rest and isinstance(rest[0], SqueezeExcite) else None
    if not _is_pointwise(rest) or rest[0].activation != "identity":
        return None
    return Call("mbconv", (expand, depthwise, squeeze, rest[0]))


def _fused_mbconv(parts: Parts) -> Call | None:
    """A k x k convolution and a linear projection."""
    if len(parts) < 2 or not isinstance(parts[0], Conv):
        return None
    expand = parts[0]
    if expand.is_depthwise or expand.is_pointwise or expand.in_channels <= IMAGE_CHANNELS:
        return None
    if not _is_pointwise(parts[1:]) or parts[1].activation != "identity":
        return None
    return Call("fused_mbconv", (expand, parts[1]))


def _is_pointwise(parts: Parts) -> bool:
    return bool(parts) and isinstance(parts[0], Conv) and parts[0].is_pointwise


def _gives_gates(call: Call) -> bool:
    return call.operator in ("depthwise_conv_gate", "squeeze_excite_gate")
