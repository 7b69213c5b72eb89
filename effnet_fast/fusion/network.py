"""Fused convolutions of a network itself: stem and head, whose batch norm and activation it calls one by one.

While a network of a known class runs one of its own methods, the first module of such a chain computes all
of it, and the modules that follow pass on what they are given, if it is that very tensor. Called by anybody
else, each module does what it always did. Compilers see the original modules: they fuse such chains
themselves.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from effnet_fast.backends import Backend
from effnet_fast.fusion.classes import exchange, give_back, rebuild
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.readers import CHAINS, Chain
from effnet_fast.fusion.spec import Block, Unsupported
from effnet_fast.fusion.state import State

__all__ = ["Network", "fuse_network", "network_of", "unfuse_network"]

_NETWORK = "_effnet_fast_network"
# Methods of the classes in CHAINS that run their modules.
_ENTRIES = ("forward", "forward_features", "forward_intermediates", "extract_features", "extract_endpoints")


class _Running(threading.local):
    """What the modules of the network that runs in this thread do."""

    links: dict[nn.Module, list[_Link]] | None = None


_running = _Running()


class _Link:
    """One chain in one run of its network."""

    def __init__(self, state: State, modules: tuple[nn.Module, ...]):
        self._state, self._modules = state, modules
        self._made: weakref.ref[Tensor] | None = None
        self._passed = 0  # how many modules of the chain have been called with what the first one made

    def run(self, module: nn.Module, x: object) -> Tensor | None:
        """The output of `module` for x, None where it must compute it itself."""
        if module is self._modules[0]:
            y = self._state.run(module, x)
            self._made, self._passed = None if y is None else weakref.ref(y), 1
            return y
        if self._made is None or self._made() is not x or self._modules[self._passed :][:1] != (module,):
            return None
        self._passed += 1
        return x


class FusedLink:
    """What the modules of a chain put before their class."""

    _original: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if len(args) == 1 and not kwargs and not torch.compiler.is_compiling():
            for link in (_running.links or {}).get(self, ()):
                y = link.run(self, args[0])
                if y is not None:
                    return y
        return super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (FusedLink, self._original), self.__dict__


class Network:
    """The chains of one network."""

    def __init__(self, owner: nn.Module, backend: str | Backend):
        self.backend = backend
        self.chains: tuple[_Chain, ...] = tuple(
            _Chain(owner, chain, backend) for chain in CHAINS[class_name(owner)](owner).found
        )

    def links(self) -> dict[nn.Module, list[_Link]]:
        """What each module of the chains does in one run."""
        links: dict[nn.Module, list[_Link]] = {}
        for chain in self.chains:
            if chain.is_in_place():
                link = _Link(chain.state, chain.modules)
                for module in chain.modules:
                    links.setdefault(module, []).append(link)
        return links


class _Chain:
    """A chain with the places of its modules in the network."""

    def __init__(self, owner: nn.Module, chain: Chain, backend: str | Backend):
        self.path = chain.lead
        self._places = []
        for name in (chain.lead, *chain.followers):
            parent, _, child = name.rpartition(".")
            self._places.append((owner.get_submodule(parent)._modules, child))
        self.modules = tuple(children[name] for children, name in self._places)
        self.state = State(self.modules[0], self._read, backend, watched=self.modules)
        self._owner, self._lead = weakref.ref(owner), chain.lead

    def is_in_place(self) -> bool:
        """Whether the network would still call the same modules."""
        return all(
            children.get(name) is module
            for (children, name), module in zip(self._places, self.modules, strict=True)
        )

    def _read(self, lead: nn.Module) -> Block:
        owner = self._owner()
        found = CHAINS[class_name(owner)](owner)
        for chain in found.found:
            if chain.lead == self._lead:
                return Block((chain.conv,))
        raise Unsupported(
            (found.refused or {}).get(self._lead, f"{self._lead} is not in the network any more")
        )


class FusedNetwork:
    """What a network with chains puts before its class."""

    _original: type[nn.Module]

    @staticmethod
    def methods_for(original: type[nn.Module]) -> dict[str, Callable[..., Any]]:
        """The methods of a fused `original`."""
        return {name: _entry(getattr(original, name)) for name in _ENTRIES if hasattr(original, name)}

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = self.__dict__.copy()
        backend = state.pop(_NETWORK).backend
        return rebuild, (FusedNetwork, self._original), (state, backend)

    def __setstate__(self, state: tuple[dict[str, Any], str | Backend]) -> None:
        plain, backend = state
        super().__setstate__(plain)
        self.__dict__[_NETWORK] = Network(self, backend)


def _entry(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` of a network, during which the links of its chains are known to its modules."""

    @functools.wraps(method)
    def entry(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        before = _running.links
        _running.links = (before or {}) | self.__dict__[_NETWORK].links()
        try:
            return method(self, *args, **kwargs)
        finally:
            _running.links = before

    return entry


def fuse_network(owner: nn.Module, backend: str | Backend) -> None:
    """Fuse the chains of `owner`, in place; nothing happens where it has none.

    Raises: RuntimeError where a backend asked for by name cannot serve them; `owner` is then as it was.
    """
    network = Network(owner, backend)
    for chain in network.chains:
        chain.state.pack()
    if not network.chains:
        return
    for chain in network.chains:
        for module in chain.modules:
            if not isinstance(module, FusedLink):  # one activation may end two chains
                exchange(module, FusedLink)
    owner.__dict__[_NETWORK] = network
    exchange(owner, FusedNetwork)


def unfuse_network(owner: nn.Module) -> None:
    """Give a fused `owner` and the modules of its chains their classes back."""
    for module in owner.modules():
        if isinstance(module, FusedLink):
            give_back(module)
    give_back(owner)
    del owner.__dict__[_NETWORK]


def network_of(module: nn.Module) -> Network | None:
    """The chains of a fused network, None for another module."""
    return module.__dict__.get(_NETWORK) if isinstance(module, FusedNetwork) else None
