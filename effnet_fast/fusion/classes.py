"""Exchanging the class of a module for a subclass of it, and giving it back.

So children, parameters, names, attributes, hooks, `isinstance` and `state_dict()` stay what they were.
"""

from __future__ import annotations

import functools

from torch import nn

__all__ = ["exchange", "give_back", "rebuild"]


@functools.cache
def _subclass(mixin: type, original: type[nn.Module]) -> type[nn.Module]:
    # By its names, tracers (torch.fx) tell which modules not to look into.
    names = {"__module__": original.__module__, "__qualname__": original.__qualname__}
    namespace = {"_original": original, "__doc__": original.__doc__, **names}
    methods_for = getattr(mixin, "methods_for", None)
    if methods_for is not None:
        namespace |= methods_for(original)
    return type(original.__name__, (mixin, original), namespace)


def exchange(module: nn.Module, mixin: type) -> None:
    """Let `module` be of a class that has `mixin` before its own class, which is `_original` of it."""
    module.__class__ = _subclass(mixin, type(module))


def give_back(module: nn.Module) -> None:
    """Undo `exchange`."""
    module.__class__ = module._original


def rebuild(mixin: type, original: type[nn.Module]) -> nn.Module:
    """An empty module of an exchanged class: these classes are found again by what they are made of."""
    cls = _subclass(mixin, original)
    return cls.__new__(cls)
