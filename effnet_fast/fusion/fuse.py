"""`effnet_fast.fuse`: somebody's model with its blocks computed by our operators."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from effnet_fast import backends
from effnet_fast.backends import Backend
from effnet_fast.fusion.geometry import check
from effnet_fast.fusion.module import fuse_module, state_of, unfuse_module
from effnet_fast.fusion.network import fuse_network, network_of, unfuse_network
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.readers import CHAINS, DECLINED, READERS
from effnet_fast.fusion.rule import slower
from effnet_fast.fusion.spec import Block, Unsupported
from effnet_fast.fusion.state import State

__all__ = ["Found", "find", "fuse", "repack", "unfuse"]

_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Found:
    """A module that is fused, that can be, or that is left alone, with the reason.

    Attributes:
        path: as in `model.named_modules()`.
        module: with its original class, or a fused one.
        block: what it computes; None where it is left alone.
        reason: why it is left alone, in one clause.
        fused: it is fused already.
    """

    path: str
    module: nn.Module
    block: Block | None
    reason: str = ""
    fused: bool = False


def fuse(
    model: _Model,
    *,
    mode: str = "inference",
    backend: str | Backend = "auto",
    inplace: bool = False,
    strict: bool = False,
) -> _Model:
    """`model` with every block that we know computed by fused operators, in evaluation and without gradients.

    Blocks of timm, torchvision, efficientnet_pytorch and of `effnet_fast.nn`, wherever they are in the model,
    keep their modules, names, parameters and hooks; only their forward is exchanged. In training mode, with
    gradients enabled, or where something looks inside (hooks on a block's parts, tracing) the original
    modules run, so that results are those of the model in every case. Maps are in channels_last memory.

    In plain PyTorch, with the batch norms of ``model.eval()``::

        fused = effnet_fast.fuse(model)
        with torch.inference_mode():
            fused(x)                     # what model(x) gives, within docs/numerics.md

    Args:
        model: any module that has such blocks in it. Not changed, unless `inplace`.
        mode: "inference".
        backend: see :func:`effnet_fast.backends.resolve`; it serves the blocks wherever the model is moved.
        inplace: change `model` itself instead of a copy.
        strict: raise where a convolution stays as it is.

    Returns:
        The fused model, of the type of `model`. :func:`fusion_report` says what was replaced,
        :func:`unfuse` takes it back. A model with nothing to replace is returned as it is, with a warning.

    Raises:
        TypeError: `model` is not a module, or it is scripted, compiled or quantised. ValueError: an unknown
        mode, parameters on the meta device, or, with `strict`, a convolution that stays, with reasons.
        NotImplementedError: mode "training". RuntimeError: `backend` cannot serve.
    """
    _check_model(model)
    _check_mode(mode)
    asked = backends.parse_backend(backend)
    found = list(find(model))
    left = [item for item in found if item.block is None]
    if strict and left:
        raise ValueError(f"strict=True, and {len(left)} parts of the model stay unfused: {_listed(left)}")
    if all(item.block is None or item.fused for item in found):
        if not any(item.fused for item in found):
            why = f" ({_listed(left)})" if left else ""
            warnings.warn(f"fuse() found nothing to fuse in this {type(model).__name__}{why}", stacklevel=2)
        return model
    before = {id(module) for module in model.modules() if _is_fused(module)} if inplace else set()
    if not inplace:
        # Tensors made under inference mode would not tell when they are written to.
        with torch.inference_mode(False):
            model = copy.deepcopy(model)
    try:
        for module in list(model.modules()):
            if class_name(module) in CHAINS and network_of(module) is None:
                fuse_network(module, asked)
        for item in list(find(model)):
            if item.block is not None and not item.fused:
                fuse_module(item.module, asked)
    except Exception:
        _unfuse(module for module in model.modules() if id(module) not in before)
        raise
    return model


def unfuse(model: _Model) -> _Model:
    """Give the blocks of `model` their original classes back, in place; returns `model`.

    Raises: TypeError unless `model` is a module.
    """
    _check_module(model)
    _unfuse(model.modules())
    return model


def repack(model: nn.Module) -> None:
    """Pack the weights of every fused block of `model` anew.

    Needed after writing to a parameter or a buffer through `.data`, or to an attribute of a block's part (its
    stride, say): such a write leaves no trace. Whatever else changes weights is noticed by the next call.

    Raises: TypeError unless `model` is a module. RuntimeError: a backend asked for by name cannot serve.
    """
    _check_module(model)
    for state in _states(model):
        state.forget()
        state.pack()


def find(model: nn.Module) -> Iterator[Found]:
    """What of `model` is fused, can be, or is left alone, in the order of `model.named_modules()`.

    Every convolution of `model` is inside of exactly one.
    """
    yield from _find("", model, set())


def _find(path: str, module: nn.Module, seen: set[nn.Module]) -> Iterator[Found]:
    if module in seen:
        return
    seen.add(module)
    state = state_of(module)
    if state is not None:
        yield Found(path, module, state.read(), state.reason, fused=True)
        return
    reason, block = _look(module)
    if block is not None:
        yield Found(path, module, block)
        return
    for lead, found in _chains(path, module):
        seen.add(lead)
        yield found
    within = [
        found
        for name, child in module.named_children()
        for found in _find(f"{path}.{name}" if path else name, child, seen)
    ]
    if reason:
        # What is fused inside is said for itself; the rest is covered by this.
        yield Found(path, module, None, reason)
        yield from (found for found in within if found.block is not None)
    elif isinstance(module, nn.modules.conv._ConvNd):
        yield Found(path, module, None, "a convolution outside of the blocks that we know")
    else:
        yield from within


def _look(module: nn.Module) -> tuple[str, Block | None]:
    """The block that `module` is, or the reason why it is none of ours ("" where nobody would expect one)."""
    name = class_name(module)
    if name not in READERS:
        return DECLINED.get(name, ""), None
    try:
        block = READERS[name](module)
        check(block)
        _check_native(block)
    except Unsupported as error:
        return str(error), None
    reason = slower(block, next(block.tensors()).device.type)
    return (reason, None) if reason else ("", block)


def _chains(path: str, module: nn.Module) -> Iterator[tuple[nn.Module, Found]]:
    """The convolutions of a network of a known class that belong to no block."""
    reader = CHAINS.get(class_name(module))
    if reader is None:
        return
    network = network_of(module)
    fused = {} if network is None else {chain.path: chain.state for chain in network.chains}
    chains = reader(module)
    rows = [(chain.lead, Block((chain.conv,)), "") for chain in chains.found]
    rows += [(lead, None, reason) for lead, reason in (chains.refused or {}).items()]
    for name, block, reason in rows:
        lead = module.get_submodule(name)
        yield lead, Found(f"{path}.{name}" if path else name, lead, block, reason, fused=name in fused)


def _is_fused(module: nn.Module) -> bool:
    return state_of(module) is not None or network_of(module) is not None


def _states(model: nn.Module) -> Iterator[State]:
    for module in model.modules():
        state, network = state_of(module), network_of(module)
        if state is not None:
            yield state
        if network is not None:
            yield from (chain.state for chain in network.chains)


def _unfuse(modules: Iterable[nn.Module]) -> None:
    for module in list(modules):
        if state_of(module) is not None:
            unfuse_module(module)
        if network_of(module) is not None:
            unfuse_network(module)


def _check_native(block: Block) -> None:
    """Unsupported for weights of a dtype that no kernel computes in."""
    dtype = next(block.tensors()).dtype
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise Unsupported(f"its weights are {str(dtype).removeprefix('torch.')}")


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _check_model(model: object) -> None:
    _check_module(model)
    if hasattr(model, "_orig_mod"):
        raise TypeError("model is compiled by torch.compile: fuse first, then compile what fuse() returns")
    for name, module in model.named_modules():
        where = f"model.{name}" if name else "model"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{where} is a torch.jit module, which has no Python forward to exchange: fuse the original"
            )
        if type(module).__module__.startswith(("torch.ao.nn.", "torch.nn.quantized", "torchao.")):
            raise TypeError(f"{where} is a quantised {type(module).__name__}: fuse the float model")
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, tensor in tensors.items():
                if tensor is not None and tensor.is_meta:
                    raise ValueError(
                        f"{kind} {key} of {where} is on the meta device, without values: load weights first"
                    )


def _check_mode(mode: str) -> None:
    if mode == "training":
        raise NotImplementedError(
            'mode="training": there are no backward kernels yet; a model that is fused for inference trains '
            "as before (its original modules run while gradients are enabled)"
        )
    if mode != "inference":
        raise ValueError(f'mode = {mode!r}, expected "inference"')


def _listed(left: list[Found]) -> str:
    shown = "; ".join(f"{item.path or type(item.module).__name__}: {item.reason}" for item in left[:5])
    return shown + (f"; and {len(left) - 5} more" if len(left) > 5 else "")
