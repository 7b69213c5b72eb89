"""Weights as the fused CUDA kernel of ``expand_depthwise`` reads them: operands of ``mma``, lane by lane.

The kernel multiplies 16 pixels by the weights of 8 expanded channels at a time; two such products are
neighbours, a *pair* of 16 channels. Channel ``4 t + 2 b + i`` of a pair is column ``2 t + i`` of its product
``b``: then a lane of a warp ends with four consecutive channels. Expanded channels are padded with zeros to a
multiple of 96, which every chunk of the kernel divides.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Largest number of input channels; nine steps of 16 with the bias behind them.
MOST_INPUTS = 128
_UNIT = 96
_BIAS_ROWS = 3


def has_layout(dtype: torch.dtype, in_channels: int, channels: int, kernel: int) -> bool:
    """Whether the fused kernel exists for layers of this storage dtype, width and kernel size."""
    sixteen_bits = dtype in (torch.float16, torch.bfloat16)
    widths = in_channels % 8 == 0 and 0 < in_channels <= MOST_INPUTS and channels % 8 == 0 and channels > 0
    return sixteen_bits and widths and kernel in (3, 5)


def _pad(weight: Tensor) -> Tensor:
    """`weight` [M, ...] with zeros behind, to a multiple of 96 channels."""
    channels = weight.shape[0]
    padded = weight.new_zeros((-(-channels // _UNIT) * _UNIT, *weight.shape[1:]))
    padded[:channels] = weight
    return padded


def split_bias(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """[M, 3] in `dtype`, whose sum is `bias` [M] float32 to its last bit or the dtype's smallest number.

    A bias beyond the range of float16 is spread over the three, up to 196512, and ends there.
    """
    limit = torch.finfo(dtype).max
    parts, rest = [], bias.float()
    for _ in range(_BIAS_ROWS):
        part = rest.clamp(-limit, limit).to(dtype)
        rest = rest - part.float()
        parts.append(part)
    return torch.stack(parts, 1)


def pack_expand(weight: Tensor, bias: Tensor) -> Tensor:
    """The expansion's weights [M, C] and bias [M] float32 as [pairs, steps, 32 lanes, 4 words, 2].

    A step is 16 rows of the product: the C input channels, three rows of the bias, and zeros. Word
    ``2 b + h`` of lane ``4 g + t`` has rows ``8 h + 2 t`` and ``+ 1`` of column g of product b.
    """
    channels, inputs = weight.shape
    steps = inputs // 16 + 1
    rows = weight.new_zeros((channels, 16 * steps))
    rows[:, :inputs] = weight
    rows[:, inputs : inputs + _BIAS_ROWS] = split_bias(bias, weight.dtype)
    # [pair, t of the channel, b, i, step, h, t of the row, row of a pair]
    split = _pad(rows).view(-1, 4, 2, 2, steps, 2, 4, 2)
    # Column g = 2 t + i of product b: lanes are [t of the channel, i, t of the row].
    return split.permute(0, 4, 1, 3, 6, 2, 5, 7).reshape(-1, steps, 32, 4, 2).contiguous()


def pack_taps(weight: Tensor) -> Tensor:
    """Depthwise weights [M, 1, k, k] as [products, words / 4, 8 columns, 4 words, 2] of their dtype.

    A word is one tap of a column's channel, in the half of the word that the diagonal of a product has it in,
    and zero in the other. Pairs of taps of a line come first, line by line, then the last tap of each.
    """
    channels, _, kernel, _ = weight.shape
    words = -(-kernel * kernel // 4) * 4
    taps = weight.new_zeros((channels, words))
    pairs = kernel * (kernel - 1)
    taps[:, :pairs] = weight[..., :-1].reshape(channels, pairs)
    taps[:, pairs : kernel * kernel] = weight[:, 0, :, -1]
    # [pair, t, b, i, words / 4, 4] to [pair, b, words / 4, t, i, 4]
    columns = _pad(taps).view(-1, 4, 2, 2, words // 4, 4).permute(0, 2, 4, 1, 3, 5)
    halves = columns.new_zeros((*columns.shape, 2))
    halves[..., 0, :, 0] = columns[..., 0, :]
    halves[..., 1, :, 1] = columns[..., 1, :]
    return halves.reshape(-1, words // 4, 8, 4, 2).contiguous()
