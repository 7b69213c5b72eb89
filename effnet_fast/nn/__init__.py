"""Building blocks of mobile inverted bottleneck networks, as trainable modules on stock PyTorch operators.

Each module's docstring has its equivalent in plain PyTorch. `effnet_fast.fuse` makes a model of them, or of
any one, run on fused operators in evaluation.
"""

from effnet_fast.nn.activations import ACTIVATIONS, GATES
from effnet_fast.nn.conv import Conv2dSame, ConvNormAct
from effnet_fast.nn.drop_path import DropPath
from effnet_fast.nn.fused_mbconv import ConvBlock, FusedMBConv
from effnet_fast.nn.mbconv import DepthwiseSeparable, MBConv
from effnet_fast.nn.padding import PADDING_MODES, same_padding
from effnet_fast.nn.squeeze_excite import SqueezeExcite

__all__ = [
    "ACTIVATIONS",
    "GATES",
    "PADDING_MODES",
    "Conv2dSame",
    "ConvBlock",
    "ConvNormAct",
    "DepthwiseSeparable",
    "DropPath",
    "FusedMBConv",
    "MBConv",
    "SqueezeExcite",
    "same_padding",
]
