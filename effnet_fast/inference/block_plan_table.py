"""A network's plan for a GPU as text: what its blocks take, and what was chosen beside what was rejected."""

from __future__ import annotations

import io

from effnet_fast.inference.block_plan import NetworkPlan
from effnet_fast.inference.branches import MOST_MEMORY
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.gpu_cost import EFFICIENCY, MARGIN
from effnet_fast.inference.overlap import LEAST_GAIN

__all__ = ["block_plan_table"]

_WIDTH = 150


def block_plan_table(plan: NetworkPlan, title: str) -> str:
    """`plan` as text, in microseconds a batch: a row for every block, then one for every other choice."""
    # Only who prints a plan pays for the import.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    look = {
        "title_justify": "left",
        "caption_justify": "left",
        "box": box.SIMPLE_HEAD,
        "padding": (0, 1, 0, 0),
    }
    total = plan.prediction
    units = ("launch", *EFFICIENCY)
    blocks = Table(
        title=f"{title}, batch {plan.images}, {str(plan.dtype).removeprefix('torch.')} on {plan.rates.name}",
        caption="µs a batch, predicted, that each unit would take alone; a kernel takes its gap and the "
        "largest of them, and total adds up the kernels, in one branch.\n"
        "other: total of the form that was not chosen. MB: read and written in memory, weights included.",
        show_footer=True,
        **look,
    )
    blocks.add_column("block", "all", no_wrap=True)
    blocks.add_column("plan", no_wrap=True)
    blocks.add_column("branches", justify="right", no_wrap=True)
    for unit in units:
        blocks.add_column(unit, _microseconds(total.parts[unit]), justify="right", no_wrap=True)
    blocks.add_column("total", _microseconds(total.seconds), justify="right", no_wrap=True)
    blocks.add_column("bound", total.bound, no_wrap=True)
    blocks.add_column("other", justify="right", no_wrap=True)
    megabytes = sum(block.bytes for block in plan.blocks) / 1e6
    blocks.add_column("MB", f"{megabytes:.1f}", justify="right", no_wrap=True)
    for block in plan.blocks:
        measured = " (measured)" if block.reason == "measured" else ""
        blocks.add_row(
            block.block,
            "" if block.form is None else f"{block.form}{measured}",
            str(block.branches),
            *(_microseconds(block.prediction.parts[unit]) for unit in units),
            _microseconds(block.prediction.seconds),
            block.prediction.bound,
            "" if block.other is None else _microseconds(block.other),
            f"{block.bytes / 1e6:.1f}",
        )

    rate = f"{plan.images_per_second:,.0f} images/s"
    if plan.overlap.stretches:
        rate = f"in one branch {rate}, with two {plan.images / plan.branched_seconds:,.0f} images/s"
    notes = (
        f"Stem and first block: together where that is predicted {MARGIN} times as fast.",
        "Two branches, each with half of the batch: where they are predicted to take "
        f"{100 * LEAST_GAIN:.0f} % less time, and at most {MOST_MEMORY} times the memory;",
        "an engine measures them in warmup(), and has one branch until then.",
        f"Rates are {plan.rates.origin}.",
        f"Prediction, not a measurement: {rate}",
    )
    choices = Table(**look)
    for heading, justify in (
        *(("blocks", "left"), ("taken", "left"), ("µs", "right"), ("bound", "left")),
        *(("instead of", "left"), ("µs", "right"), ("bound", "left")),
    ):
        choices.add_column(heading, justify=justify, no_wrap=True)
    for choice in (plan.stem, *plan.branches):
        choices.add_row(
            choice.blocks,
            choice.taken,
            *_predicted(choice.prediction),
            choice.other,
            *_predicted(choice.rejected),
        )
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False)
    console.print(blocks)
    console.print(choices)
    return "\n".join([*(line.rstrip() for line in console.file.getvalue().splitlines()), *notes])


def _predicted(prediction: Prediction | None) -> tuple[str, str]:
    return ("", "") if prediction is None else (_microseconds(prediction.seconds), prediction.bound)


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"
