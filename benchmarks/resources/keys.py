"""Every compilation that B0..B7 need: kernel x storage type x the blocks that the heuristics choose."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.kernel_calls import KernelCall, kernel_calls
from effnet_fast.inference.layers import Layer, Value
from effnet_fast.models import create_model, model_config

MODELS = tuple(f"efficientnet_b{index}" for index in range(8))
BATCHES = (1, 32, 256)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

#: NVIDIA's architectures by capability. Networks in float32 are for checking, and are proven on two of them.
CAPABILITIES = (80, 86, 89, 90, 100, 120)
SINGLE_CAPABILITIES = (80, 90)
#: AMD's, on which the kernels at least compile within the limits.
AMD_DTYPES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Wanted:
    """One compilation.

    Attributes:
        device: name of the architecture.
        operator: whose kernel it is.
        key: an `offline.Key`.
        storages: storage types of the networks that need it; squeeze-excite and the classifier are float32
            in all of them.
        layers: calls in all models and batches that it serves.
    """

    device: str
    operator: str
    key: object
    storages: tuple[str, ...]
    layers: int

    @property
    def title(self) -> str:
        return f"{self.device} {self.key}"


def devices() -> dict[str, object]:
    """Name -> `Device` of every architecture of the report."""
    from effnet_fast.triton_kernels import offline
    from effnet_fast.triton_kernels.device import ARCHITECTURES

    return {ARCHITECTURES[at].name: ARCHITECTURES[at] for at in CAPABILITIES} | offline.AMD


def storages_of(device: str) -> tuple[str, ...]:
    """Storage types of the networks that are compiled for `device`."""
    if device.startswith("gfx"):
        return AMD_DTYPES
    single = device in {f"sm_{capability}" for capability in SINGLE_CAPABILITIES}
    return tuple(DTYPES) if single else AMD_DTYPES


def wanted(names: Sequence[str]) -> list[Wanted]:
    """The compilations for the devices called `names`, each once."""
    from effnet_fast.triton_kernels.offline import key_of

    known = devices()
    found: dict[tuple, dict[str, int]] = {}
    for storage in DTYPES:
        targets = [name for name in names if storage in storages_of(name)]
        for call, count in family_calls(storage) if targets else ():
            module = importlib.import_module(f"effnet_fast.triton_kernels.{call.operator}")
            for name in targets:
                for launch in module.launches(known[name], call.outputs, *call.arguments):
                    served = found.setdefault((name, call.operator, key_of(launch)), {})
                    served[storage] = served.get(storage, 0) + count
    return [
        Wanted(*at, tuple(served), sum(served.values())) for at, served in sorted(found.items(), key=_order)
    ]


def _order(item: tuple) -> tuple:
    (device, operator, key), _ = item
    return list(devices()).index(device), operator, str(key)


@cache
def family_calls(storage: str) -> list[tuple[KernelCall, int]]:
    """The calls of B0..B7 at every batch with maps in `storage`, equal ones once with their number."""
    calls = []
    for layer, count in _layers():
        for images in BATCHES:
            for image_dtype in _image_dtypes(layer, DTYPES[storage]):
                calls += [(call, count) for call in kernel_calls(layer, images, DTYPES[storage], image_dtype)]
    return calls


@cache
def call_lines(storage: str) -> list[tuple[str, int]]:
    """The layers of B0..B7 at every batch with maps in `storage`, as launches.cpp reads them but for the GPU;
    equal ones once with their number. In 16 bits also those of blocks whose expansion is fused, and of first
    blocks that are computed with the stem.
    """
    lines: Counter[str] = Counter()
    fused = () if storage == "float32" else _layers(BlockForm.EXPANSION_FUSED)
    more = [pair for pair in fused if pair[0].operator.startswith("expand_depthwise")]
    together = () if storage == "float32" else _layers(BlockForm.WITH_STEM)
    more += [pair for pair in together if pair[0].is_stem_block]
    for layer, count in [*_layers(), *more]:
        (channels, height, width), maps = layer.x.shape, "float32" if layer.x.single else storage
        for images in BATCHES:
            for image in _image_dtypes(layer, DTYPES[storage]):
                words = (
                    layer.operator, maps, images, channels, height, width, layer.kernel, layer.stride,
                    *layer.padding, layer.y.shape[0], layer.expanded, layer.squeeze,
                    int(layer.gate is not None), int(layer.residual is not None), layer.activation,
                    str(image).removeprefix("torch."),
                )  # fmt: skip
                lines[" ".join(map(str, words))] += count
    return list(lines.items())


def _image_dtypes(layer: Layer, dtype: torch.dtype) -> Iterable[torch.dtype]:
    reads_images = layer.operator == "stem_conv" or layer.is_stem_block
    return (torch.uint8, dtype) if reads_images else (dtype,)


@cache
def _layers(form: BlockForm = BlockForm.THREE_KERNELS) -> list[tuple[Layer, int]]:
    return list(Counter(_nameless(layer) for layer in _named_layers(form)).items())


def _named_layers(form: BlockForm) -> Iterator[Layer]:
    for name in MODELS:
        with torch.device("meta"):
            model = create_model(name).eval()
        size = model_config(name).resolution
        yield from network_layers(fold(model), (size, size), forms=form)


def _nameless(layer: Layer) -> Layer:
    """`layer` without what tells it from layers that are computed alike."""
    values = {key: value for key, value in vars(layer).items() if isinstance(value, Value)}
    return replace(
        layer, name="", block="", **{key: replace(value, name="") for key, value in values.items()}
    )
