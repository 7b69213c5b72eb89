"""The tensors that a block's weights are made of: where they are, and whether they were written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from effnet_fast.fusion.parts import original_class
from effnet_fast.fusion.spec import Block, Conv, SqueezeExcite

__all__ = ["Source", "key_of", "kinds_of", "sources_of", "with_tensors"]


_PLAIN = (Tensor, nn.Parameter)


class Source(NamedTuple):
    """A place for a tensor: `table` is _parameters or _buffers."""

    module: nn.Module
    table: str
    name: str


def sources_of(block: Block) -> Iterator[Source]:
    """Every place of a tensor of `block`, empty ones too; the first is a convolution's weight."""
    for part in block.parts:
        for module, names in _holders(part):
            for name in names:
                yield Source(module, "_parameters" if name in module._parameters else "_buffers", name)


def _holders(part: Conv | SqueezeExcite) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    if isinstance(part, Conv):
        yield part.conv, ("weight", "bias")
        if part.norm is not None:
            # A batch norm in training writes its statistics without counting versions, but for this number.
            statistics = ("running_mean", "running_var", "num_batches_tracked")
            yield part.norm, ("weight", "bias", *statistics)
        if part.scale is not None:
            yield part.scale, ("gamma",)
    else:
        yield part.reduce, ("weight", "bias")
        yield part.expand, ("weight", "bias")


def kinds_of(tensors: Sequence[Tensor | None]) -> tuple:
    """What a reader looks at: which there are, their shapes, and types that no reader takes."""
    return tuple(
        None if tensor is None else tensor.shape if type(tensor) in _PLAIN else type(tensor)
        for tensor in tensors
    )


def key_of(tensors: Sequence[Tensor | None], norms: Sequence[nn.Module]) -> tuple | None:
    """Changes whenever a tensor is exchanged or written to (but through `.data`), or an eps is set.

    That holds while the memory of `tensors` is not freed. None where no key says that: tensors made under
    inference mode count no versions, and those of other types define their own memory.
    """
    key: list[object] = [norm.eps for norm in norms]
    for tensor in tensors:
        if tensor is None:
            key.append(None)
        elif type(tensor) in _PLAIN and not tensor.is_inference():
            key += (tensor.data_ptr(), tensor.dtype, tensor._version)
        else:
            return None
    return tuple(key)


def with_tensors(block: Block, tensors: Sequence[Tensor | None]) -> Block:
    """`block` with `tensors` in the places of `sources_of`, in modules of its own."""
    twins: dict[nn.Module | None, nn.Module | None] = {None: None}
    for (module, table, name), tensor in zip(sources_of(block), tensors, strict=True):
        if module not in twins:
            twins[module] = _twin(module)
        getattr(twins[module], table)[name] = tensor
    fields = ("conv", "norm", "scale"), ("reduce", "expand")
    parts = (
        replace(
            part, **{name: twins[getattr(part, name)] for name in fields[isinstance(part, SqueezeExcite)]}
        )
        for part in block.parts
    )
    return Block(tuple(parts), block.residual)


def _twin(module: nn.Module) -> nn.Module:
    """A copy of `module` that shares its tensors, and whose tensors can be exchanged."""
    cls = original_class(module)
    twin = cls.__new__(cls)
    tables = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}
    vars(twin).update(vars(module) | tables)
    return twin
