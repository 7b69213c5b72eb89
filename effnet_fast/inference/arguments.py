"""What a layer gives its operator, in the order of the operator's schema.

One table for whoever calls the operators of a plan; an operator whose arguments have the usual names needs no
code here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from effnet_fast.inference.layers import Layer, Value
from effnet_fast.ops.schemas import operator

__all__ = ["Held", "Made", "arguments", "written"]


class Held(NamedTuple):
    """A tensor that the network holds: ``packed`` (or the weights by name), ``mean``, ``std``."""

    name: str


class Made(NamedTuple):
    """A tensor that another layer made, or the caller: `value`, with `rank` dimensions.

    A map has 4, partial sums have 3 ([N, tiles, C]), gates and pooled channels 2; the x of a 1x1 convolution
    has 4 even where it is one pixel.
    """

    value: Value
    rank: int


def arguments(layer: Layer, dtype: torch.dtype, variant: str = "packed") -> tuple[Any, ...]:
    """`Made`, `Held`, or the argument itself, for every argument of `layer`'s operator.

    Args:
        layer: one call of a plan.
        dtype: of the maps between operators.
        variant: the operator's form, as in `effnet_fast.ops.handle`; outputs of an ``into`` form are left
            out, see `written`.
    """
    row = operator(layer.operator)
    first, *rest = row.parameters_of(variant)
    # Tensors of a projection; a whole block is told a function by `gate`, and by `residual` to add its x.
    made = {first.name: layer.x, "gate": layer.gate, "residual": layer.residual}
    known = {
        "stride": layer.stride,
        "padding": layer.padding,
        "kernel": layer.kernel,
        "out_channels": layer.y.shape[0],
        "expanded": layer.filtered_channels,
        "stem_channels": layer.filtered_channels,
        "depthwise_kernel": layer.depthwise_kernel,
        "squeeze": layer.squeeze,
        "count": layer.count,
        "activation": layer.activation,
        "expand_activation": layer.expand_activation,
        "se_activation": layer.se_activation,
        "gate": layer.gate_function,
        "residual": layer.residual is not None,
        "dtype": dtype,
    }
    found: list[Any] = []
    for parameter in (first, *rest):
        name = parameter.name
        if not parameter.is_tensor:
            found.append(known[name])
        elif name not in made:
            found.append(Held(name))
        else:
            value = made[name]
            found.append(None if value is None else Made(value, len(row.tensors[name].shape)))
    return tuple(found)


def written(layer: Layer) -> tuple[Made, ...]:
    """What `layer`'s operator returns, or writes in its ``into`` form, in order."""
    specs = operator(layer.operator).outputs.values()
    return tuple(Made(value, len(spec.shape)) for value, spec in zip(layer.writes, specs, strict=True))
