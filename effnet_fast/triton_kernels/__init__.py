"""Triton kernels: one module per operator, importable only where Triton is.

A module's function ``launches(device, outputs, *arguments)`` maps one call to the kernels that serve it; it
looks at shapes and dtypes alone, so that the same function is executed, interpreted, and compiled for a GPU
that is not there. :mod:`.configs` holds what is chosen per shape and needs no Triton to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

#: Operators with a kernel of their own; the rest of the contract is composed of them.
OPERATORS = (
    "depthwise_conv",
    "depthwise_conv_pool",
    "pointwise_conv",
    "dense_conv",
    "stem_conv",
    "squeeze_excite_gate",
    "head_pool",
)


def serve(module: ModuleType, outputs: Sequence[Tensor], arguments: Sequence[Any]) -> None:
    """Run what `module` launches for one call; nothing for an empty batch."""
    from .launch import run

    if outputs[0].numel():
        run(module.launches, outputs, arguments)
