"""A network on a GPU, on paper: how every block runs, what it takes of each unit, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch

from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.branches import predicted_overlap
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.draft import draft
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.gpu_cost import choose_block_forms, predict_layers_on_gpu
from effnet_fast.inference.gpu_work import gpu_work
from effnet_fast.inference.layers import block_operators
from effnet_fast.inference.overlap import Overlap
from effnet_fast.inference.plan_choices import Choice, branch_choices, stem_choice
from effnet_fast.inference.stem_form import choose_stem_form
from effnet_fast.inference.tuned_plans import TunedPlan
from effnet_fast.measure.gpu_rates import GpuRates

__all__ = ["BlockPlan", "NetworkPlan", "block_plan"]


@dataclass(frozen=True)
class BlockPlan:
    """One block, or the stem, head or classifier.

    Attributes:
        block: its name.
        form: chosen; None where there is nothing to choose.
        reason: "predicted", "measured" or "only form"; empty where there is nothing to choose.
        prediction: of all its kernels, one after the other.
        other: seconds predicted for the form that was not chosen, the stem included where it is part of the
            block; None where there is none.
        bytes: read and written in memory, weights included.
        branches: 2 where the halves of a batch run side by side once `warmup` has measured that to be faster.
    """

    block: str
    form: BlockForm | None
    reason: str
    prediction: Prediction
    other: float | None
    bytes: int
    branches: int = 1


@dataclass(frozen=True)
class NetworkPlan:
    """A whole network for `images` images at a time; nothing in it was run.

    Attributes:
        blocks: in one branch each, in order.
        stem: whether stem and first block are computed together.
        branches: which runs of blocks may have two branches.
        overlap: the same, as an engine's plan has it before anything is measured.
    """

    images: int
    dtype: torch.dtype
    rates: GpuRates
    blocks: tuple[BlockPlan, ...]
    stem: Choice
    branches: tuple[Choice, ...]
    overlap: Overlap

    @property
    def prediction(self) -> Prediction:
        """In one branch."""
        return reduce(add, (block.prediction for block in self.blocks))

    @property
    def images_per_second(self) -> float:
        """Predicted, in one branch."""
        return self.images / self.prediction.seconds

    @property
    def branched_seconds(self) -> float:
        """Predicted, with the two branches of `overlap`."""
        return self.prediction.seconds - sum(stretch.one - stretch.two for stretch in self.overlap.stretches)

    def to_json(self) -> dict[str, Any]:
        """Plain values; seconds, and bytes of all images."""
        return {
            "images": self.images,
            "dtype": str(self.dtype).removeprefix("torch."),
            "chip": self.rates.name,
            "rates": "measured" if self.rates.measured else "nominal",
            "predicted_seconds": self.prediction.seconds,
            "predicted_images_per_second": self.images_per_second,
            "predicted_seconds_with_branches": self.branched_seconds,
            "stem": self.stem.to_json(),
            "branches": [choice.to_json() for choice in self.branches],
            "blocks": [
                {
                    "block": block.block,
                    "form": None if block.form is None else str(block.form),
                    "branches": block.branches,
                    "reason": block.reason,
                    "predicted_seconds": block.prediction.seconds,
                    "parts": dict(block.prediction.parts),
                    "bound": block.prediction.bound,
                    "other_form_seconds": block.other,
                    "bytes": block.bytes,
                }
                for block in self.blocks
            ],
        }


def block_plan(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    rates: GpuRates,
    tuned: TunedPlan | None = None,
) -> NetworkPlan:
    """What an engine would do for `images` images on a GPU of these `rates`, with kernels of the cuda backend
    and CUDA graphs; `network` may be on meta.

    Arguments as of `choose_block_forms`.
    """
    call = {"images": images, "dtype": dtype, "image_dtype": image_dtype, "rates": rates}
    choices = choose_block_forms(network, image_size, tuned=tuned, **call)
    forms = {name: choice.form for name, choice in choices.items()}
    stem = choose_stem_form(network, image_size, **call)
    if stem.together:
        forms[network.blocks[0].name] = BlockForm.WITH_STEM
    shapes = {"dtype": dtype, "image_dtype": image_dtype, "device": torch.device("cuda")}
    plan = draft(network, image_size, batch=images, forms=forms, **shapes).plan(images)
    overlap = predicted_overlap(plan, rates)
    branched = {layer.block for begin, end in overlap.bounds for layer in plan.layers[begin:end]}
    blocks = []
    for layers in block_operators(plan.layers):
        name = layers[0].block
        form, reason, other = forms.get(name), "", None
        if form is BlockForm.WITH_STEM:
            reason, other = "predicted", stem.predicted[BlockForm.THREE_KERNELS].seconds
        elif form is not None:
            reason = choices[name].reason
            rest = [taken.seconds for rival, taken in choices[name].predicted.items() if rival is not form]
            other = rest[0] if rest else None
        moved = (
            gpu_work(
                layer, images, dtype, image_dtype,
                multiprocessors=rates.multiprocessors, shared_capacity=rates.shared_capacity,
            ).memory
            for layer in layers
        )  # fmt: skip
        blocks.append(
            BlockPlan(
                block=name,
                form=form,
                reason=reason,
                prediction=predict_layers_on_gpu(layers, images, dtype, image_dtype, rates),
                other=other,
                bytes=round(sum(moved)),
                branches=2 if name in branched else 1,
            )
        )
    return NetworkPlan(
        images=images,
        dtype=dtype,
        rates=rates,
        blocks=tuple(blocks),
        stem=stem_choice(stem, network.blocks[0].name),
        branches=branch_choices(plan, overlap, rates),
        overlap=overlap,
    )
