"""Which blocks of which libraries we know, by full class name, and what each of them computes.

READERS: full class name -> reader, which returns the `Block` that a module computes or raises `Unsupported`.
CHAINS: full class name of a network -> reader of its convolutions outside of blocks, which returns `Chains`.
DECLINED: full class name -> why we leave such modules alone.

A reader answers for one object as it is now: its forward and its children's must be those of their classes.
It asks for the classes of the children alone; that of the object itself is another one once it is fused.
Whether the parts fit each other is for `effnet_fast.fusion.geometry` to check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from effnet_fast.fusion.parts import require_plain
from effnet_fast.fusion.readers import efficientnet_pytorch, ours, timm, torchvision
from effnet_fast.fusion.readers.chains import CHAINS, Chain, Chains
from effnet_fast.fusion.spec import Block, Unsupported

__all__ = ["CHAINS", "DECLINED", "READERS", "Chain", "Chains", "Reader"]

Reader = Callable[[nn.Module], Block]


def _read(reader: Reader, module: nn.Module) -> Block:
    for each in module.modules():
        require_plain(each)
    try:
        block = reader(module)
    except AttributeError as error:
        # The class is known by name, but its library may be of a version that we have not read.
        raise Unsupported(f"not as in the versions we know: {error}") from error
    if not block.parts:
        raise Unsupported("there is nothing in it")
    return block


_LIBRARIES = (timm, torchvision, efficientnet_pytorch, ours)

READERS: Mapping[str, Reader] = {
    name: partial(_read, reader) for library in _LIBRARIES for name, reader in library.READERS.items()
}
DECLINED: Mapping[str, str] = {
    name: reason for library in _LIBRARIES for name, reason in library.DECLINED.items()
}
