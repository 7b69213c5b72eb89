"""What a fused module was found to compute, and what was packed for it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from effnet_fast.fusion.geometry import check
from effnet_fast.fusion.program import Program
from effnet_fast.fusion.sources import kinds_of, sources_of
from effnet_fast.fusion.spec import Block, Unsupported

__all__ = ["Packed", "Reading"]


class Reading:
    """What was read at one time, with the programs that were made of it."""

    def __init__(self, owner: nn.Module, read: Callable[[nn.Module], Block], roots: Sequence[nn.Module]):
        self.block: Block | None = None
        self.reason = ""
        self.norms: tuple[nn.Module, ...] = ()
        self.kinds: tuple = ()
        self.programs: dict[torch.dtype, Packed] = {}
        self._places: tuple[tuple[dict, str], ...] = ()
        self._watched = tuple((m, tuple(m._modules.values())) for root in roots for m in root.modules())
        try:
            block = read(owner)
            check(block)
        except Unsupported as error:
            self.reason = str(error)
            return
        self.block = block
        # Dictionaries: attributes of a module are slower.
        self._places = tuple((getattr(module, table), name) for module, table, name in sources_of(block))
        self.kinds = kinds_of(self.tensors())
        self.norms = tuple(conv.norm for conv in block.convs if conv.norm is not None)

    def tensors(self) -> list[Tensor | None]:
        """What the weights are made of, as it is now."""
        return [table.get(name) for table, name in self._places]

    def look(self, free: nn.Module | None) -> bool | None:
        """Whether the modules evaluate without hooks (but on `free`); None where they are not those read."""
        for module, children in self._watched:
            # A module that is not in its place any more comes after its parent, and is not asked.
            if tuple(module._modules.values()) != children:
                return None
            if module.training:
                # Not all norms count their writes.
                self.programs = {}
                return False
            if "forward" in module.__dict__:
                return False
            if (module._forward_hooks or module._forward_pre_hooks) and module is not free:
                return False
        return True

    def keep(self, packed: Packed, dtype: torch.dtype) -> None:
        """Remember `packed`, and what was packed of the same weights for other dtypes."""
        others = {d: held for d, held in self.programs.items() if held.key == packed.key}
        self.programs = {**others, dtype: packed}


class Packed:
    """A program with what its weights were made of, and the key of that; None once it is out of date."""

    __slots__ = ("__weakref__", "_memory", "key", "program", "tensors")

    def __init__(self, key: tuple, tensors: list[Tensor | None], program: Program | None):
        self.key: tuple | None = key
        self.tensors, self.program = tensors, program
        # Kept from other tensors while the key stands for it: `tensor.data = other` frees a tensor's memory.
        self._memory = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
        _watch_optimizers()
        _live.add(self)


_live: weakref.WeakSet[Packed] = weakref.WeakSet()


@functools.cache
def _watch_optimizers() -> None:
    """Fused optimizers write parameters without counting versions: they are asked which, after every step."""
    register_optimizer_step_post_hook(_outdate)


def _outdate(optimizer: torch.optim.Optimizer, *_: object) -> None:
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for packed in tuple(_live):
        if any(id(tensor) in stepped for tensor in packed.tensors):
            packed.key = None
