"""Activations and gates by the names that the operators use ("silu", "sigmoid", ...)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

__all__ = ["ACTIVATIONS", "GATES", "make_activation", "make_gate"]

# In place: the tensor is a batch norm's fresh output, which nothing else reads, so this saves one
# activation-sized allocation per convolution (autograd keeps its own copy where it needs one).
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": partial(nn.SiLU, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": partial(nn.ReLU6, inplace=True),
    "hardswish": partial(nn.Hardswish, inplace=True),
    "identity": nn.Identity,
}

GATES: dict[str, Callable[[], nn.Module]] = {"sigmoid": nn.Sigmoid, "hardsigmoid": nn.Hardsigmoid}


def make_activation(name: str) -> nn.Module:
    """A new activation module. Raises ValueError for a name outside `ACTIVATIONS`."""
    return _make(name, "activation", ACTIVATIONS)


def make_gate(name: str) -> nn.Module:
    """A new gate module (a squeeze-excite's map into [0, 1]). ValueError for a name outside `GATES`."""
    return _make(name, "gate", GATES)


def _make(name: str, argument: str, table: dict[str, Callable[[], nn.Module]]) -> nn.Module:
    if name not in table:
        raise ValueError(f"{argument} must be one of {', '.join(table)}, got {name!r}")
    return table[name]()
