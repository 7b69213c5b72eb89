"""Values that a block moves between memory and kernels, for one image, counted from shapes alone.

Every map that an operator reads or writes, once an operator; to be multiplied by the bytes of a value.
Weights are left out, which a batch shares, and so are means and gates: one value a channel.
"""

from __future__ import annotations

from collections.abc import Callable

from effnet_fast.fusion.calls import SCALE, calls_of
from effnet_fast.fusion.geometry import output_size
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.spec import Block, Conv, SqueezeExcite

__all__ = ["eager_values", "our_values"]

# Our own convolution with TensorFlow's padding copies its input only where the two sides differ.
_COPIES_UNEVEN = "effnet_fast.nn.conv.Conv2dSame"


def eager_values(block: Block, height: int, width: int) -> int:
    """What the block's own modules read and write of an input [C, height, width], each by itself.

    A convolution, a batch norm, an activation and a layer scale read a map and write one, and so does a
    padding that the convolution does not do itself. A squeeze-excite reads for the mean; its product reads
    and writes. The residual sum reads two maps and writes one.
    """
    total, maps = 0, _maps(block, height, width)
    for part, (read, written) in maps.items():
        if isinstance(part, SqueezeExcite):
            total += 3 * read
            continue
        padded = _padded_copy(part, *_size_before(block, part, height, width))
        total += read + 2 * padded if padded else read
        total += written
        passes = (part.norm is not None) + (part.activation != "identity") + (part.scale is not None)
        total += 2 * passes * written
    return total + (3 * _last(maps) if block.residual else 0)


def our_values(block: Block, height: int, width: int, is_one_kernel: Callable[[str], bool]) -> int:
    """What the operators of `calls_of(block)` read and write of an input [C, height, width].

    Args:
        is_one_kernel: whether the operator of a whole block has a kernel, whose maps in between stay in the
            cache; elsewhere it is one operator a convolution.
    """
    total, maps = 0, _maps(block, height, width)
    first = current = block.in_channels * height * width
    calls = calls_of(block)
    for call in calls:
        if call.operator == SCALE:
            total += 2 * current
            continue
        if call.operator == "squeeze_excite_gate":
            total += current
            continue
        pairs = [maps[conv] for conv in call.convs]
        current = pairs[-1][1]
        if len(pairs) > 1 and is_one_kernel(call.operator):
            total += pairs[0][0] + current
        else:
            total += sum(read + written for read, written in pairs) + (first if call.residual else 0)
    return total + (3 * current if block.residual and not calls[-1].residual else 0)


def _maps(block: Block, height: int, width: int) -> dict[Conv | SqueezeExcite, tuple[int, int]]:
    """The values of the maps before and behind each part."""
    maps = {}
    for part in block.parts:
        read = part.in_channels * height * width
        if isinstance(part, Conv):
            height, width = output_size(part, height, width)
        maps[part] = read, part.out_channels * height * width
    return maps


def _last(maps: dict[Conv | SqueezeExcite, tuple[int, int]]) -> int:
    return list(maps.values())[-1][1]


def _size_before(block: Block, part: Conv, height: int, width: int) -> tuple[int, int]:
    for conv in block.convs:
        if conv is part:
            break
        height, width = output_size(conv, height, width)
    return height, width


def _padded_copy(part: Conv, height: int, width: int) -> int:
    """Values of the padded copy of a convolution's input, 0 where it pads by itself."""
    top, left, bottom, right = sides = part.padding_for(height, width)
    even = (top, left) == (bottom, right)
    itself = part.conv.padding not in ((0, 0), 0) or (even and class_name(part.conv) == _COPIES_UNEVEN)
    if not any(sides) or itself:
        return 0
    return part.in_channels * (height + top + bottom) * (width + left + right)
