"""What a layer costs: its work by counting, its time by dividing the work by a device's ceilings.

Pure functions of shapes and rates; nothing is run or measured here.

A step's time is what its launch costs and what its resources take: memory (bytes), the matrix units (1x1 and
dense convolutions, squeeze-excite), the vector units (depthwise convolutions), the special functions (SiLU,
sigmoid). On a GPU these work side by side and the slowest counts; on a CPU they are one core's time and add
up (see `Ceilings.additive`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch

from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.layers import Layer, block_operators, network_layers
from effnet_fast.inference.planner import Plan, step_bytes, working_set_bytes
from effnet_fast.inference.weight_counts import is_depthwise, squeeze_excite_macs, weight_bytes
from effnet_fast.measure.ceilings import Ceilings

__all__ = [
    "Prediction",
    "Work",
    "choose_fused_blocks",
    "overlapped_seconds",
    "predict",
    "predict_passes",
    "predict_plan",
    "work",
]

# Repeated measurements of a ceiling differ by a few per cent.
_TIE = 0.1


@dataclass(frozen=True)
class Work:
    """What one call of an operator does for its images.

    Attributes:
        bytes_activations: maps, gates and sums, each read or written once.
        bytes_weights: weights, read once.
        bytes_reread: weights of the squeeze-excite, whose matrix-vector products read them again for every
            image after the first; they stay in the cache.
        matrix_macs: multiply-adds of 1x1 and dense convolutions and of squeeze-excite layers.
        fused_macs: multiply-adds of a 1x1 expansion that a depthwise or block kernel computes for itself.
        vector_macs: multiply-adds of depthwise convolutions, padding counted as work.
        special: SiLU and sigmoid evaluations; ReLU and the hard activations are none.
    """

    bytes_activations: int
    bytes_weights: int
    bytes_reread: int
    matrix_macs: int
    fused_macs: int
    vector_macs: int
    special: int

    @property
    def macs(self) -> int:
        """All multiply-adds."""
        return self.matrix_macs + self.fused_macs + self.vector_macs


@dataclass(frozen=True)
class Prediction:
    """Seconds of a step; `parts`: seconds that launch, memory, matrix, vector and special units take of it.

    `bound` is the largest part.
    """

    seconds: float
    parts: Mapping[str, float]

    @property
    def bound(self) -> str:
        return max(self.parts, key=self.parts.__getitem__)

    def __add__(self, other: Prediction) -> Prediction:
        """Both, one after the other."""
        parts = {name: seconds + other.parts[name] for name, seconds in self.parts.items()}
        return Prediction(self.seconds + other.seconds, parts)


def overlapped_seconds(a: Prediction, b: Prediction) -> float:
    """Seconds of two kernels that run side by side on a GPU: each resource serves both in turn.

    The largest sum of two parts, and both launches. Never less than the longer of the two takes alone; never
    more than both one after the other, if each of them takes its launch and its largest part.
    """
    launches = a.parts.get("launch", 0.0) + b.parts.get("launch", 0.0)
    resources = {*a.parts, *b.parts} - {"launch"}
    busy = max((a.parts.get(name, 0.0) + b.parts.get(name, 0.0) for name in resources), default=0.0)
    return max(launches + busy, a.seconds, b.seconds)


def work(layer: Layer, images: int, dtype: torch.dtype, image_dtype: torch.dtype) -> Work:
    """The work of one call of `layer` on `images` images.

    Args:
        layer: see `network_layers`.
        images: at least 1.
        dtype: of the maps and convolution weights.
        image_dtype: of the images, which the stem reads.
    """
    storage = 4 if layer.x.single else dtype.itemsize
    weights = weight_bytes(layer, storage)
    squeeze_excite = squeeze_excite_macs(layer)  # one weight a multiply-add, float32
    matrix, fused, vector = _convolution_macs(layer)
    return Work(
        bytes_activations=images * step_bytes(layer, dtype, image_dtype),
        bytes_weights=weights,
        bytes_reread=(images - 1) * 4 * squeeze_excite,
        matrix_macs=images * (matrix + squeeze_excite),
        fused_macs=images * fused,
        vector_macs=images * vector,
        special=images * _special(layer),
    )


def predict(
    layer: Layer,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    ceilings: Ceilings,
    working_set: int | None = None,
) -> Prediction:
    """The time of one call of `layer` on `images` images; see `work`.

    `working_set` is what must be within `ceilings.cache_size` for the traffic to stay in the cache, in bytes:
    x and y of all images where it is None.
    """
    done = work(layer, images, dtype, image_dtype)
    if working_set is None:
        working_set = images * working_set_bytes(layer, dtype, image_dtype)
    cached = working_set <= ceilings.cache_size
    bandwidth = ceilings.cache_bytes if cached else ceilings.memory_bytes
    units = {
        "memory": (done.bytes_activations + done.bytes_weights) / bandwidth
        + done.bytes_reread / ceilings.cache_bytes,
        "matrix": done.matrix_macs / ceilings.matrix_macs + done.fused_macs / ceilings.fused_macs,
        "vector": done.vector_macs / ceilings.vector_macs,
        "special": done.special / ceilings.special,
    }
    busy = sum(units.values()) if ceilings.additive else max(units.values())
    return Prediction(ceilings.launch_seconds + busy, {"launch": ceilings.launch_seconds, **units})


def predict_plan(plan: Plan, ceilings: Ceilings, images: int | None = None) -> dict[str, Prediction]:
    """{layer name: prediction of all its passes} over `images` >= 1 images (None: a whole batch)."""
    return predict_passes(
        plan, images, lambda layer, count: predict(layer, count, plan.dtype, plan.image_dtype, ceilings)
    )


def predict_passes(
    plan: Plan, images: int | None, predicted: Callable[[Layer, int], Prediction]
) -> dict[str, Prediction]:
    """As `predict_plan`, of the predictions of single calls: layer, images -> prediction."""
    images = plan.batch if images is None else images
    return {
        layer.name: reduce(
            add, (predicted(layer, end - begin) for begin, end in plan.passes(images, segment))
        )
        for segment in plan.segments
        for layer in segment.layers
    }


def choose_fused_blocks(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    ceilings: Ceilings,
) -> frozenset[str]:
    """Names of the blocks whose expansion the depthwise kernel should compute for itself; whole blocks are
    not considered.

    For every block with an expansion, both forms of it are predicted for `images` images (as many as go
    through it at a time). Fused, the expanded tensor never reaches memory, but its multiply-adds run at
    `ceilings.fused_macs`. Three kernels are taken where they are faster by more than `_TIE`: else the form
    that moves less, so that the noise in measured ceilings does not choose.
    """
    fused_blocks, kernel_blocks = (
        {
            layers[0].block: layers
            for layers in block_operators(network_layers(network, image_size, forms=form))
        }
        for form in (BlockForm.EXPANSION_FUSED, BlockForm.THREE_KERNELS)
    )

    def seconds(layers: Iterable[Layer]) -> float:
        return sum(predict(layer, images, dtype, image_dtype, ceilings).seconds for layer in layers)

    return frozenset(
        name
        for name, layers in fused_blocks.items()
        if layers != kernel_blocks[name] and seconds(layers) <= (1 + _TIE) * seconds(kernel_blocks[name])
    )


def _convolution_macs(layer: Layer) -> tuple[int, int, int]:
    """Multiply-adds of one image: on the matrix units, of a fused expansion, on the vector units."""
    if layer.operator == "squeeze_excite_gate":
        return 0, 0, 0
    channels_in, height, width = layer.x.shape
    channels_out, out_height, out_width = layer.y.shape
    filtered = layer.filtered_channels
    if layer.is_stem_block:
        pixels = filtered * math.prod(layer.convolved_size)
        project = channels_out if layer.operator == "stem_block" else 0
        return pixels * (layer.kernel**2 * channels_in + project), 0, pixels * layer.depthwise_kernel**2
    taps = layer.kernel**2 * filtered * out_height * out_width
    expansion = channels_in * filtered * height * width if layer.expands else 0
    projection = filtered * channels_out * out_height * out_width if layer.is_whole_block else 0
    if is_depthwise(layer):
        return projection, expansion, taps
    if layer.operator == "head_pool":  # y is the mean of a map as large as x
        taps *= height * width
    return channels_in * taps + projection, 0, 0


def _special(layer: Layer) -> int:
    """SiLU and sigmoid evaluations of one image."""
    _, height, width = layer.x.shape
    _, out_height, out_width = layer.y.shape
    filtered = layer.filtered_channels
    gates = filtered * (layer.gate_function == "sigmoid")
    if layer.operator == "squeeze_excite_gate":
        return layer.squeeze * (layer.activation == "silu") + gates
    if layer.is_stem_block:
        return 2 * filtered * math.prod(layer.convolved_size) * (layer.activation == "silu")
    pixels = height * width if layer.operator == "head_pool" else out_height * out_width
    total = filtered * pixels * (layer.activation == "silu")
    if layer.expands:
        total += filtered * height * width * (layer.expand_activation == "silu")
    if layer.squeeze:
        total += layer.squeeze * (layer.se_activation == "silu") + gates
    return total
