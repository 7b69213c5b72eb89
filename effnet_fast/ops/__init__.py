"""Fused operators of mobile inverted bottleneck networks.

The public functions check their arguments, follow autocast, choose a backend and are differentiable. The
dispatcher operators of the same names under ``torch.ops.effnet_fast`` are what they call; :func:`handle` and
:func:`pack` give an engine those, and packed weights for them, without the checks.
"""

from effnet_fast import backends, native

# Importing these registers what is derived from the schemas; the libraries, loaded last, implement the rest.
from . import cuda_packing, fakes, registration, schemas, triton_twins  # noqa: F401
from .dense_conv import dense_conv
from .depthwise_conv import depthwise_conv
from .depthwise_conv_gate import depthwise_conv_gate
from .depthwise_conv_pool import depthwise_conv_pool
from .expand_depthwise import expand_depthwise
from .expand_depthwise_pool import expand_depthwise_pool
from .fused_mbconv import fused_mbconv
from .handles import handle
from .head_pool import head_pool
from .mbconv import mbconv
from .packing import pack
from .pointwise_conv import pointwise_conv
from .squeeze_excite_gate import squeeze_excite_gate
from .stem_block import stem_block
from .stem_block_sums import stem_block_sums
from .stem_conv import stem_conv

__all__ = [
    "dense_conv",
    "depthwise_conv",
    "depthwise_conv_gate",
    "depthwise_conv_pool",
    "expand_depthwise",
    "expand_depthwise_pool",
    "fused_mbconv",
    "handle",
    "head_pool",
    "mbconv",
    "pack",
    "pointwise_conv",
    "squeeze_excite_gate",
    "stem_block",
    "stem_block_sums",
    "stem_conv",
]

native.load()
if native.available("cuda"):
    cuda_packing.register()
backends.inspect_libraries({name: row.parts for name, row in schemas.OPERATORS.items()})
