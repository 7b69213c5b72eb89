"""Weights as the kernels of a GPU read them: what Triton packs, and CUDA too.

The layouts are the natural ones of channels_last memory, so arranging is a permutation, and it is done by
PyTorch on whatever device the weights are on:

    depthwise_conv        [k * k, C], bias [C]
    pointwise_conv, head  [Cout, C], bias [Cout]
    dense_conv, stem      [Cout, k, k, C], bias [Cout]
    squeeze_excite_gate   [S, C], [S], [C, S], [C], all float32

A bias is float32, and zeros where there is none. Where a SiLU follows and storage has 16 bits, weight and
bias are halved: then ``silu(2 h) = h + h * tanh(h)`` costs one special-function instruction and one
multiply-add. Halving is exact but for subnormal float16 weights (below 2**-14, whose last bit may be lost).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .schemas import Operator


def halves(activation: str, storage: torch.dtype) -> bool:
    """Whether weights in front of `activation` are halved."""
    return activation == "silu" and storage in (torch.float16, torch.bfloat16)


def _bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    if bias is None:
        return torch.zeros(weight.shape[0], dtype=torch.float32, device=weight.device)
    return bias.float().contiguous()


def arrange(row: Operator, weights: Sequence[Tensor | None], activation: str) -> list[Tensor]:
    """Framework weights of `row`, in schema order, as the kernels read them; `activation` is its own.

    Operators that are composed of others have no layout of their own and are refused: ValueError.
    """
    if row.name == "squeeze_excite_gate":
        w1, b1, w2, b2 = weights
        w1, w2 = w1.flatten(1), w2.flatten(1)
        return [w1.contiguous(), _bias(b1, w1), w2.contiguous(), _bias(b2, w2)]
    if len(weights) != 2:
        raise ValueError(f"{row.name} has no layout of its own, its parts have")
    weight, bias = weights
    bias = _bias(bias, weight)
    if weight.dim() == 2:
        matrix = weight
    elif row.tensors["weight"].shape[1] == "1":
        matrix = weight.flatten(1).t()
    elif row.tensors["weight"].shape[-1] == "1":
        matrix = weight.flatten(1)
    else:
        matrix = weight.permute(0, 2, 3, 1)
    if halves(activation, weight.dtype):
        matrix, bias = matrix * 0.5, bias * 0.5
    return [matrix.contiguous(), bias.contiguous()]


def arranged_shape(row: Operator, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Shape of the first arranged weight of `row` for `sizes` by letter: see the table above."""
    letters = row.tensors[row.weights[0]].shape
    if letters[1] == "1":
        return (sizes["k"] * sizes["k"], sizes[letters[0]])
    if letters[-1] == "1":
        return (sizes[letters[0]], sizes[letters[1]])
    return (sizes[letters[0]], sizes["k"], sizes["k"], sizes[letters[1]])
