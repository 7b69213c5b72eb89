"""What a layer takes on a GPU, and which form of a block is faster there: pure functions of shapes and rates.

The units of a GPU work side by side, so that a kernel takes as long as the one that takes longest:

    seconds = gaps before its kernels + max over units of work / (rate x efficiency)

Work is counted in `gpu_work`. Few blocks leave multiprocessors idle, or with too few warps to keep them busy,
and fetch too little at a time to fill the memory's bandwidth: all of that lengthens small batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch

from effnet_fast.inference.block_forms import BlockForm, possible_forms
from effnet_fast.inference.cost import Prediction, predict_passes
from effnet_fast.inference.expand_tiles import Tiling, choose_tiling
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.gpu_work import gpu_work
from effnet_fast.inference.layers import Layer, block_operators, network_layers
from effnet_fast.inference.planner import Plan, working_set_bytes
from effnet_fast.inference.tuned_plans import BlockShape, TunedPlan
from effnet_fast.measure.gpu_rates import GpuRates

__all__ = [
    "EFFICIENCY",
    "MARGIN",
    "BlockChoice",
    "choose_block_forms",
    "predict_layers_on_gpu",
    "predict_on_gpu",
    "predict_plan_on_gpu",
]

#: What a kernel reaches of a unit's rate at best. Assumed, until `make gpu` has measured it.
EFFICIENCY = {"memory": 0.88, "tensor": 0.70, "fma": 0.85, "special": 0.85, "issue": 0.75, "shared": 0.85}

#: Three kernels, unless the fused form is predicted to be so much faster. Its prediction leans on rates that
#: nobody has measured: with an issue efficiency of 0.60, and an mma of depth 8 as slow as one of 16, a block
#: takes up to 1.14 times as long; three kernels take up to 1.1 times less if their depthwise kernel issues
#: 0.86, not 0.75.
MARGIN = 1.25

# Warps that keep a multiprocessor's units busy: two for each of its four schedulers. Assumed.
_BUSY_WARPS = 8

# What a warp has under way, as blocks of four warps keep 16 to 64 KiB (csrc/cuda/matrix_launch.h), and how
# long that is under way: 26 KiB a multiprocessor cover the latency of an H200's memory. That of the L2 cache
# is assumed.
_BYTES_UNDER_WAY = 4096
_MEMORY_LATENCY, _CACHE_LATENCY = 8e-7, 3e-7

# Share of the L2 cache in which what one kernel writes is still found by the next. Assumed.
_CACHED_SHARE = 0.5


@dataclass(frozen=True)
class BlockChoice:
    """The form of an MBConv block, and why.

    Attributes:
        block: its name.
        form: chosen.
        predicted: {form: prediction of the block}, of every form that the GPU has kernels for.
        measured: {form: seconds}, where a tuned result for such a block was found; both forms or none.
    """

    block: str
    form: BlockForm
    predicted: Mapping[BlockForm, Prediction]
    measured: Mapping[BlockForm, float]

    @property
    def reason(self) -> str:
        """In words."""
        if len(self.predicted) == 1:
            return "only form"
        return "measured" if self.measured else "predicted"


def predict_on_gpu(
    layer: Layer,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    rates: GpuRates,
    *,
    tiling: Tiling | None = None,
    working_set: int | None = None,
) -> Prediction:
    """The time of one call of `layer` on `images` images; its parts are those of `EFFICIENCY`, and "launch".

    `tiling` as in `gpu_work`; `working_set` as in `cost.predict`.

    Raises: ValueError, as `gpu_work`.
    """
    work = gpu_work(
        layer, images, dtype, image_dtype,
        multiprocessors=rates.multiprocessors, shared_capacity=rates.shared_capacity, tiling=tiling,
    )  # fmt: skip
    if working_set is None:
        working_set = images * working_set_bytes(layer, dtype, image_dtype)
    cached = working_set <= _CACHED_SHARE * rates.cache_size
    latency = _CACHE_LATENCY if cached else _MEMORY_LATENCY
    traffic = work.memory + work.cached
    memory = max(
        work.memory / ((rates.cache_bytes if cached else rates.memory_bytes) * EFFICIENCY["memory"]),
        traffic / (rates.cache_bytes * EFFICIENCY["memory"]),
        # No block is faster than its own loads.
        work.block_bytes * latency / (work.warps * _BYTES_UNDER_WAY),
    )
    # The busiest multiprocessor has so many times the blocks that it would have if all had equally many.
    rounds = -(-work.blocks // rates.multiprocessors)
    busy = min(1.0, min(work.resident, rounds) * work.warps / _BUSY_WARPS)
    uneven = rounds * rates.multiprocessors / work.items / busy
    parts = {
        "launch": work.kernels * rates.launch_seconds,
        "memory": memory,
        "tensor": uneven * work.tensor / (rates.tensor_macs * EFFICIENCY["tensor"]),
        "fma": uneven * work.fma / (rates.fma * EFFICIENCY["fma"]),
        "special": uneven * work.special / (rates.special * EFFICIENCY["special"]),
        "issue": uneven * work.issue / (rates.issue * EFFICIENCY["issue"]),
        "shared": uneven * work.shared / (rates.shared_bytes * EFFICIENCY["shared"]),
    }
    return Prediction(parts["launch"] + max(parts[name] for name in EFFICIENCY), parts)


def predict_plan_on_gpu(plan: Plan, rates: GpuRates, images: int | None = None) -> dict[str, Prediction]:
    """{layer name: prediction of all its passes} over `images` >= 1 images (None: a whole batch)."""
    return predict_passes(
        plan, images, lambda layer, count: predict_on_gpu(layer, count, plan.dtype, plan.image_dtype, rates)
    )


def predict_layers_on_gpu(
    layers: Iterable[Layer], images: int, dtype: torch.dtype, image_dtype: torch.dtype, rates: GpuRates
) -> Prediction:
    """At least one call, one after the other; see `predict_on_gpu`."""
    return reduce(add, (predict_on_gpu(layer, images, dtype, image_dtype, rates) for layer in layers))


def choose_block_forms(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    rates: GpuRates,
    tuned: TunedPlan | None = None,
) -> dict[str, BlockChoice]:
    """{block name: choice} of every MBConv block of `network`, for `images` images at a time.

    Where `tuned` has both forms of such a block, the one that took less; else the expansion is fused where
    there is a kernel for its shape and it is predicted faster by more than `MARGIN`.
    """
    forms = (BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED)
    layers_by_form = {
        form: {
            layers[0].block: layers
            for layers in block_operators(network_layers(network, image_size, forms=form))
        }
        for form in forms
    }

    choices = {}
    for block in network.blocks:
        possible = possible_forms(block)
        if BlockForm.THREE_KERNELS not in possible:
            continue
        predicted, measured = {}, {}
        for form in forms:
            layers = layers_by_form[form][block.name]
            if form in possible and _has_kernels(layers, images, dtype, rates):
                predicted[form] = predict_layers_on_gpu(layers, images, dtype, image_dtype, rates)
        if tuned is not None and len(predicted) == 2:
            shape = BlockShape.of(layers_by_form[BlockForm.THREE_KERNELS][block.name])
            measured = tuned.seconds(shape, images, dtype) or {}
        choices[block.name] = BlockChoice(block.name, _best(predicted, measured), predicted, measured)
    return choices


def _best(predicted: Mapping[BlockForm, Prediction], measured: Mapping[BlockForm, float]) -> BlockForm:
    if BlockForm.EXPANSION_FUSED not in predicted:
        return BlockForm.THREE_KERNELS
    if measured:
        return min(measured, key=measured.__getitem__)
    fused, three = (predicted[form].seconds for form in (BlockForm.EXPANSION_FUSED, BlockForm.THREE_KERNELS))
    return BlockForm.EXPANSION_FUSED if MARGIN * fused < three else BlockForm.THREE_KERNELS


def _has_kernels(layers: Iterable[Layer], images: int, dtype: torch.dtype, rates: GpuRates) -> bool:
    """Whether no layer is an expansion that the fused kernel is not made for."""

    def made(layer: Layer) -> bool:
        tiling = choose_tiling(layer, images, rates.multiprocessors, rates.shared_capacity)
        return dtype.itemsize == 2 and tiling is not None

    return all(made(layer) for layer in layers if layer.expands)
