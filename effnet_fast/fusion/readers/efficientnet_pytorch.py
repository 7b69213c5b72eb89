"""efficientnet_pytorch's block. Nothing of the library is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from effnet_fast.fusion.parts import read_conv, read_squeeze_excite
from effnet_fast.fusion.spec import Block

__all__ = ["DECLINED", "READERS"]


def _mbconv(block: nn.Module) -> Block:
    # One activation module serves all; the gate is a function. `drop_connect_rate` is idle in evaluation.
    arguments, swish, parts = block._block_args, block._swish, []
    if arguments.expand_ratio != 1:
        parts.append(read_conv(block._expand_conv, block._bn0, swish))
    parts.append(read_conv(block._depthwise_conv, block._bn1, swish))
    if block.has_se:
        parts.append(read_squeeze_excite(block._se_reduce, block._se_expand, swish, "sigmoid"))
    parts.append(read_conv(block._project_conv, block._bn2))
    # The first block of a stage has its stride in a list, and [1] == 1 is false: there is no skip in it, even
    # where it has as many channels before as behind. This is the forward's own comparison.
    residual = block.id_skip and arguments.stride == 1 and arguments.input_filters == arguments.output_filters
    return Block(tuple(parts), bool(residual))


READERS: Mapping[str, Callable[[nn.Module], Block]] = {"efficientnet_pytorch.model.MBConvBlock": _mbconv}
DECLINED: Mapping[str, str] = {}
