"""A network on a GPU, on paper: the form of every block, what it takes of each unit, and what limits it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch

from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.gpu_cost import EFFICIENCY, choose_block_forms, predict_on_gpu
from effnet_fast.inference.gpu_work import gpu_work
from effnet_fast.inference.layers import block_operators, network_layers
from effnet_fast.inference.stem_form import choose_stem_form
from effnet_fast.inference.tuned_plans import TunedPlan
from effnet_fast.measure.gpu_rates import GpuRates

__all__ = ["BlockPlan", "NetworkPlan", "block_plan", "block_plan_table"]


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
    """

    block: str
    form: BlockForm | None
    reason: str
    prediction: Prediction
    other: float | None
    bytes: int


@dataclass(frozen=True)
class NetworkPlan:
    """A whole network for `images` images at a time; nothing in it was run."""

    images: int
    dtype: torch.dtype
    rates: GpuRates
    blocks: tuple[BlockPlan, ...]

    @property
    def prediction(self) -> Prediction:
        return reduce(add, (block.prediction for block in self.blocks))

    @property
    def images_per_second(self) -> float:
        """Predicted."""
        return self.images / self.prediction.seconds

    def to_json(self) -> dict[str, Any]:
        """Plain values; seconds, and bytes of all images."""
        return {
            "images": self.images,
            "dtype": _name(self.dtype),
            "chip": self.rates.name,
            "rates": "measured" if self.rates.measured else "nominal",
            "predicted_seconds": self.prediction.seconds,
            "predicted_images_per_second": self.images_per_second,
            "blocks": [
                {
                    "block": block.block,
                    "form": None if block.form is None else str(block.form),
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
    """What an engine would do for `images` images on a GPU of these `rates`; `network` may be on meta.

    Arguments as of `choose_block_forms`.
    """
    call = {"images": images, "dtype": dtype, "image_dtype": image_dtype, "rates": rates}
    choices = choose_block_forms(network, image_size, tuned=tuned, **call)
    forms = {name: choice.form for name, choice in choices.items()}
    stem = choose_stem_form(network, image_size, **call)
    if stem.together:
        forms[network.blocks[0].name] = BlockForm.WITH_STEM
    blocks = []
    for layers in block_operators(network_layers(network, image_size, forms=forms)):
        name = layers[0].block
        form, reason, other = forms.get(name), "", None
        if form is BlockForm.WITH_STEM:
            reason, other = "predicted", stem.apart_seconds
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
                prediction=reduce(
                    add, (predict_on_gpu(layer, images, dtype, image_dtype, rates) for layer in layers)
                ),
                other=other,
                bytes=round(sum(moved)),
            )
        )
    return NetworkPlan(images, dtype, rates, tuple(blocks))


def block_plan_table(plan: NetworkPlan, title: str) -> str:
    """`plan` as text: microseconds a batch of each unit, a row for every block."""
    # Only who prints a plan pays for the import.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    total = plan.prediction
    units = ("launch", *EFFICIENCY)
    table = Table(
        title=f"{title}, batch {plan.images}, {_name(plan.dtype)} on {plan.rates.name}",
        title_justify="left",
        caption="µs a batch, predicted, that each unit would take alone; a kernel takes its gap and the "
        "largest of them, and total adds up the kernels.\n"
        "other: total of the form that was not chosen. MB: read and written in memory, weights included.\n"
        f"Rates are {plan.rates.origin}.\n"
        f"Prediction, not a measurement: {plan.images_per_second:,.0f} images/s",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_footer=True,
    )
    table.add_column("block", "all", no_wrap=True)
    table.add_column("plan", no_wrap=True)
    for unit in units:
        table.add_column(unit, _microseconds(total.parts[unit]), justify="right", no_wrap=True)
    table.add_column("total", _microseconds(total.seconds), justify="right", no_wrap=True)
    table.add_column("bound", total.bound, no_wrap=True)
    table.add_column("other", justify="right", no_wrap=True)
    megabytes = sum(block.bytes for block in plan.blocks) / 1e6
    table.add_column("MB", f"{megabytes:.1f}", justify="right", no_wrap=True)
    for block in plan.blocks:
        measured = " (measured)" if block.reason == "measured" else ""
        table.add_row(
            block.block,
            "" if block.form is None else f"{block.form}{measured}",
            *(_microseconds(block.prediction.parts[unit]) for unit in units),
            _microseconds(block.prediction.seconds),
            block.prediction.bound,
            "" if block.other is None else _microseconds(block.other),
            f"{block.bytes / 1e6:.1f}",
        )
    console = Console(file=io.StringIO(), width=150, color_system=None, force_terminal=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
