"""Fused modules: a block of the model whose forward runs our operators, or the original one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effnet_fast.backends import Backend
from effnet_fast.fusion.classes import exchange, give_back, rebuild
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.readers import READERS
from effnet_fast.fusion.state import State
from effnet_fast.fusion.traced import traced

__all__ = ["fuse_module", "state_of", "unfuse_module"]

_STATE = "_effnet_fast"


class FusedModule:
    """What a fused module's class has before its original class."""

    _original: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        y = None
        # efficientnet_pytorch hands a drop_connect_rate to its blocks, for training.
        if len(args) == 1 and (not kwargs or kwargs.keys() == {"drop_connect_rate"}):
            if torch.compiler.is_compiling():
                y = traced(self, self._effnet_fast, args[0])
            else:
                y = self.__dict__[_STATE].run(self, args[0])
        return super().forward(*args, **kwargs) if y is None else y

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = self.__dict__.copy()
        backend = state.pop(_STATE).backend
        return rebuild, (FusedModule, self._original), (state, backend)

    def __setstate__(self, state: tuple[dict[str, Any], str | Backend]) -> None:
        plain, backend = state
        super().__setstate__(plain)
        self.__dict__[_STATE] = _state(self, backend)

    def _get_name(self) -> str:
        return f"{self._original.__name__}[fused]"


def _state(module: nn.Module, backend: str | Backend) -> State:
    return State(module, READERS[class_name(module)], backend)


def fuse_module(module: nn.Module, backend: str | Backend) -> None:
    """Make `module`, of a class in READERS, a fused one, in place, and pack its weights.

    Raises: RuntimeError where a backend asked for by name cannot serve it; the module is then as it was.
    """
    state = _state(module, backend)
    state.pack()
    module.__dict__[_STATE] = state
    exchange(module, FusedModule)


def unfuse_module(module: nn.Module) -> None:
    """Give a fused `module` its class back."""
    give_back(module)
    del module.__dict__[_STATE]


def state_of(module: nn.Module) -> State | None:
    """The state of a fused module, None for another one."""
    return module.__dict__.get(_STATE) if isinstance(module, FusedModule) else None
