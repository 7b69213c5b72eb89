"""The weights of a call, made from the modules as they are now: batch norms folded, layer scales too."""

from __future__ import annotations

import torch
from torch import Tensor

from effnet_fast.fusion.calls import Call
from effnet_fast.fusion.spec import Conv, SqueezeExcite
from effnet_fast.inference.folding import fold_batch_norm
from effnet_fast.ops.schemas import operator

__all__ = ["fold_conv", "weights_of"]


def fold_conv(conv: Conv) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, float32, of the convolution that equals `conv` before its activation.

    The bias is None where nothing gives one. Everything is multiplied in float64 and rounded once.
    """
    weight, bias = conv.conv.weight.detach(), conv.conv.bias
    bias = None if bias is None else bias.detach()
    if conv.norm is not None:
        # norm(conv + b) = norm(conv) + b * scale, and norm(conv) is what `fold_batch_norm` folds.
        if bias is not None:
            scaled, _ = fold_batch_norm(bias, conv.norm)
        weight, shift = fold_batch_norm(weight, conv.norm)
        bias = shift if bias is None else shift + scaled
    weight, bias = weight.float(), None if bias is None else bias.float()
    if conv.scale is not None:
        gamma = conv.scale.gamma.detach().float()
        weight = weight * gamma[:, None, None, None]
        bias = None if bias is None else bias * gamma
    return weight, bias


def _fold_squeeze_excite(part: SqueezeExcite) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else tensor.detach().float() for tensor in part.tensors())


@torch.no_grad()
def weights_of(call: Call, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """The weights of `call` in the order of its operator's schema.

    Convolutions' weights are rounded to the storage `dtype`, biases and squeeze-excite are float32.
    """
    found: list[Tensor | None] = []
    for position, part in enumerate(call.parts):
        if part is None:
            # An mbconv without expansion lacks a weight and a bias, one without squeeze-excite two of each.
            found += [None] * (2 if position == 0 else 4)
        elif isinstance(part, SqueezeExcite):
            found += _fold_squeeze_excite(part)
        else:
            found += fold_conv(part)
    row = operator(call.operator)
    return tuple(
        tensor.to(dtype) if tensor is not None and row.tensors[name].kind == "storage" else tensor
        for name, tensor in zip(row.weights, found, strict=True)
    )
