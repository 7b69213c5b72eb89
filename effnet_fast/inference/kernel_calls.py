"""The operator calls of a network as meta tensors: what a backend's kernels are compiled and tuned for.

Nothing is allocated, so that every layer of every model at any batch is described in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effnet_fast.inference.folding import fold
from effnet_fast.inference.layers import Layer, network_layers
from effnet_fast.models import create_model, model_config
from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.geometry import allocate, pool_tiles
from effnet_fast.ops.schemas import Operator, TensorSpec, operator

__all__ = ["KernelCall", "kernel_calls", "model_calls"]


@dataclass(frozen=True, eq=False)
class KernelCall:
    """One call of an operator that has a kernel of its own.

    Attributes:
        layer: name of the layer that makes it.
        operator: as in `effnet_fast.ops`.
        outputs: meta tensors.
        arguments: in the order of the packed form; arranged weights stand for the packed tensor.
    """

    layer: str
    operator: str
    outputs: tuple[Tensor, ...]
    arguments: tuple[Any, ...]


def model_calls(
    name: str, images: int, dtype: torch.dtype, image_dtype: torch.dtype | None = None
) -> Iterator[KernelCall]:
    """The calls of one forward pass of model `name` on `images` images of its own resolution."""
    with torch.device("meta"):
        model = create_model(name).eval()
    size = model_config(name).resolution
    for layer in network_layers(fold(model), (size, size)):
        yield from kernel_calls(layer, images, dtype, image_dtype or dtype)


def kernel_calls(
    layer: Layer, images: int, dtype: torch.dtype, image_dtype: torch.dtype
) -> Iterator[KernelCall]:
    """The calls that `layer` of the three-kernel plan makes; `dtype` is that of the maps."""
    if layer.operator == "depthwise_conv_gate":
        yield _call("depthwise_conv_pool", layer, images, dtype, image_dtype)
        yield _call("squeeze_excite_gate", layer, images, torch.float32, image_dtype)
    else:
        storage = torch.float32 if layer.x.single else dtype
        yield _call(layer.operator, layer, images, storage, image_dtype)


def _call(name: str, layer: Layer, images: int, storage: torch.dtype, image_dtype: torch.dtype) -> KernelCall:
    row = operator(name)
    channels, height, width = layer.x.shape
    out_channels, out_height, out_width = layer.y.shape
    if name == "squeeze_excite_gate":
        channels = out_channels
        scalars = {"activation": layer.se_activation, "gate": layer.gate_function}
    else:
        scalars = {"activation": layer.activation}
    sizes = {
        "n": images, "c": channels, "h": height, "w": width, "k": layer.kernel, "s": layer.squeeze,
        "o": out_channels, "oh": out_height, "ow": out_width, "t": pool_tiles(out_height, out_width),
    }  # fmt: skip
    absent = {
        "gate": layer.gate is None,
        "residual": layer.residual is None,
        # Pixels that are floats come normalised.
        "mean": image_dtype != torch.uint8,
        "std": image_dtype != torch.uint8,
    }
    tensors = {
        key: None if absent.get(key, False) else _meta(spec, sizes, storage, image_dtype)
        for key, spec in row.tensors.items()
    }
    weights = arrange(row, [tensors[key] for key in row.weights], scalars["activation"])
    values = {
        "stride": layer.stride,
        "padding": layer.padding,
        "count": out_height * out_width,
        "dtype": storage,
        **{argument: sizes[letter] for argument, letter in row.geometry.items()},
        **scalars,
        **tensors,
        "packed": weights,
    }
    arguments = tuple(values[parameter.name] for parameter in row.packed_parameters)
    return KernelCall(layer.name, name, _outputs(row, sizes, storage), arguments)


def _meta(spec: TensorSpec, sizes: dict[str, int], storage: torch.dtype, image_dtype: torch.dtype) -> Tensor:
    dtype = {"storage": storage, "image": image_dtype}.get(spec.kind, torch.float32)
    shape = [sizes[letter] if letter != "1" else 1 for letter in spec.shape]
    is_map = spec.shape[0] == "n" and len(shape) == 4
    memory_format = torch.channels_last if is_map else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=memory_format)


def _outputs(row: Operator, sizes: dict[str, int], storage: torch.dtype) -> tuple[Tensor, ...]:
    return allocate(row, sizes, storage, torch.device("meta"))
