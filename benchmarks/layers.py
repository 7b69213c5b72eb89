"""What `benchmarks ops` measures: the distinct layers of a model's three-kernel plan, and inputs for them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import DTYPES, describe_model
from benchmarks.profile import group_of, shape_text
from benchmarks.subject import DISTINCT_IMAGES, rows_of_batch
from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.layers import Layer
from effnet_fast.models import create_model
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import make_args


@dataclass(frozen=True)
class LayerCase:
    """One fused operator call: a layer of `model`, which has `count` like it, at a batch and a dtype."""

    model: str
    layer: Layer
    count: int
    batch: int
    dtype: str

    @property
    def key(self) -> str:
        return f"{self.model}/{self.layer.name}/{self.batch}/{self.dtype}"

    @property
    def storage(self) -> torch.dtype:
        """Of the call: what follows the head's mean is float32 in every network."""
        return torch.float32 if self.layer.x.single else DTYPES[self.dtype]

    def record(self) -> dict[str, object]:
        """Columns of the result file."""
        return {
            "model": self.model,
            "layer": self.layer.name,
            "step": group_of(self.layer),
            "operator": self.layer.operator,
            "shape": shape_text(self.layer),
            "layers": self.count,
            "batch": self.batch,
            "dtype": self.dtype,
        }

    def arguments(self, device: str) -> list[Any]:
        """Arguments of the operator in schema order; few images differ, as speed does not depend on them."""
        layer = self.layer
        channels, height, width = layer.x.shape
        absent = {"gate": layer.gate, "residual": layer.residual, "mean": None, "std": None}
        squeeze_excite = {"s": layer.squeeze, "se_activation": layer.se_activation}
        args = make_args(
            layer.operator,
            dtype=self.storage,
            image_dtype=self.storage,
            without=[name for name, value in absent.items() if value is None],
            n=min(self.batch, DISTINCT_IMAGES),
            c=channels, h=height, w=width, o=layer.y.shape[0], k=layer.kernel, stride=layer.stride,
            padding=layer.padding, activation=layer.activation, gate=layer.gate_function,
            **(squeeze_excite if layer.squeeze else {}),
        )  # fmt: skip
        rows = rows_of_batch(self.batch)
        return [_on(value, device) for value in images_of(layer.operator, args, rows)]


def _on(value: Any, device: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    is_map = value.dim() == 4 and min(value.shape[2:]) > 0
    layout = torch.channels_last if is_map else torch.contiguous_format
    return value.to(device).contiguous(memory_format=layout)


def images_of(operator: str, args: Sequence[Any], rows: torch.Tensor) -> list[Any]:
    """`args` with the images `rows` of every tensor that has one entry for each."""
    row = OPERATORS[operator]
    specs = [row.tensors.get(parameter.name) for parameter in row.parameters]
    return [
        value[rows.to(value.device)]
        if spec is not None and value is not None and spec.shape[0] == "n"
        else value
        for spec, value in zip(specs, args, strict=True)
    ]


@functools.cache
def distinct_layers(model: str) -> tuple[tuple[Layer, int], ...]:
    """The layers of `model` at its own resolution, each with the number of layers that are the same call."""
    size, _ = describe_model(model)
    with torch.device("meta"):
        network = fold(create_model(model).eval())
    found: dict[tuple, list[Layer]] = {}
    for layer in network_layers(network, (size, size)):
        call = (
            layer.operator, layer.x.shape, layer.x.single, layer.y.shape, layer.activation, layer.kernel,
            layer.stride, layer.padding, layer.gate is None, layer.residual is None, layer.squeeze,
            layer.se_activation, layer.gate_function,
        )  # fmt: skip
        found.setdefault(call, []).append(layer)
    return tuple((layers[0], len(layers)) for layers in found.values())


def layer_cases(
    models: Iterable[str],
    batches: Sequence[int],
    dtypes: Sequence[str],
    operators: Sequence[str] = (),
) -> list[LayerCase]:
    """Every combination, model by model; `operators` limits it to some of them."""
    return [
        LayerCase(model, layer, count, batch, dtype)
        for model in models
        for layer, count in distinct_layers(model)
        if not operators or layer.operator in operators
        for batch in batches
        for dtype in dtypes
    ]
