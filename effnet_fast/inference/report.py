"""What an engine says about itself: its plan as a table, its memory as a line."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from effnet_fast.inference.layers import Layer

if TYPE_CHECKING:
    from effnet_fast.inference.cost import Prediction
    from effnet_fast.inference.overlap import Overlap
    from effnet_fast.inference.planner import Plan

__all__ = ["MemoryReport", "format_bytes", "plan_table"]

_WIDTH = 140


@dataclass(frozen=True)
class MemoryReport:
    """Bytes that an engine holds.

    Attributes:
        arena_bytes: the one allocation in which every activation lies.
        weight_bytes: packed weights, the only copy that is computed with.
        peak_bytes: most bytes of activations that are live at any one step, at most `arena_bytes`; the
            difference is lost to placement and alignment.
        scratch_bytes: most bytes that a kernel takes for itself besides, see `effnet_fast.inference.scratch`;
            the engines of a process share them.
        saved_bytes: float32 weights kept in the host's memory for `InferenceEngine.save`; not a part of
            `total_bytes`, which are the device's.
    """

    arena_bytes: int
    weight_bytes: int
    peak_bytes: int
    scratch_bytes: int = 0
    saved_bytes: int = 0

    @property
    def activation_bytes(self) -> int:
        """What is held besides weights: the arena, and the scratch memory of kernels."""
        return self.arena_bytes + self.scratch_bytes

    @property
    def total_bytes(self) -> int:
        return self.activation_bytes + self.weight_bytes

    def __str__(self) -> str:
        scratch = f"scratch {format_bytes(self.scratch_bytes)}, " if self.scratch_bytes else ""
        saved = f"; kept for save() {format_bytes(self.saved_bytes)}" if self.saved_bytes else ""
        return (
            f"activations {format_bytes(self.arena_bytes)} (live at most {format_bytes(self.peak_bytes)}), "
            f"{scratch}weights {format_bytes(self.weight_bytes)}, "
            f"together {format_bytes(self.total_bytes)}{saved}"
        )


def format_bytes(count: int) -> str:
    """1536 -> "1.5 KiB"."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def plan_table(
    plan: Plan,
    predictions: Mapping[str, Prediction] | None = None,
    measured: Mapping[str, float] | None = None,
) -> str:
    """The plan as text: a row for every operator, a rule between segments, totals at the end.

    Args:
        plan: see `plan_network`.
        predictions: {layer name: prediction of a whole batch}; None: the plan's own, if it has any.
        measured: {layer name: seconds of a whole batch}; None: the plan's own, if it has any.

    Times are microseconds a batch; a column of which nothing is known is left out. `ratio` is predicted /
    measured: what is far below 1 takes longer than what the device should need for it.
    """
    # Only who prints a plan pays for the import.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    predictions = plan.predictions if predictions is None else predictions
    measured = plan.measured if measured is None else measured
    whole = any(layer.is_whole_block for layer in plan.layers)
    table = Table(
        title=f"batch {plan.batch}, {plan.image_size[0]} x {plan.image_size[1]}, "
        f"{_name(plan.dtype)} ({_name(plan.image_dtype)} images), {plan.threads} threads",
        title_justify="left",
        caption=f"arena {format_bytes(plan.arena_bytes)}, live at most {format_bytes(plan.peak_bytes)}"
        + (f", scratch {format_bytes(plan.scratch_bytes)}" if plan.scratch_bytes else "")
        + "; bytes: read and written for one image, weights aside"
        + ("; times: µs a batch" if predictions or measured else "")
        + ("\nwhole n: the whole block in one kernel, n channels inside" if whole else "")
        + "".join(f"\ntwo branches: {line}" for line in _branches(plan.overlap)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_footer=True,
    )
    total_bytes = sum(plan.step_bytes(layer) for layer in plan.layers)
    table.add_column("block", "all", no_wrap=True)
    table.add_column("operator", no_wrap=True)
    table.add_column("convolution")  # the one to be broken where a line gets too long
    for heading in ("in", "out"):
        table.add_column(heading, no_wrap=True)
    table.add_column("bytes", format_bytes(total_bytes), justify="right", no_wrap=True)
    table.add_column("images\na pass", justify="right", no_wrap=True)
    for heading, footer in _times_of(plan.layers, predictions, measured).items():
        justify = "left" if heading == "bound" else "right"
        table.add_column(heading, footer, justify=justify, no_wrap=True)
    for segment in plan.segments:
        block = None
        for layer in segment.layers:
            table.add_row(
                "" if layer.block == block else layer.block,
                layer.operator,
                _convolution(layer),
                _shape(layer.x.shape),
                _shape(layer.y.shape),
                format_bytes(plan.step_bytes(layer)),
                str(segment.images),
                *_times_of([layer], predictions, measured).values(),
            )
            block = layer.block
        table.add_section()
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _branches(overlap: Overlap | None) -> Iterable[str]:
    """What there is to say of two branches: a line a stretch, then which graphs have them."""
    if overlap is None:
        return
    for stretch in overlap.stretches:
        line = stretch.first if stretch.first == stretch.last else f"{stretch.first} to {stretch.last}"
        if stretch.two is not None:
            line += f", predicted {1e6 * stretch.two:.1f} µs a batch instead of {1e6 * stretch.one:.1f}"
        yield line
    if not overlap.stretches:
        yield "predicted to pay nowhere"
    elif overlap.graphs:
        yield f"in graphs of {', '.join(map(str, overlap.graphs))} images"
    elif overlap.failure is not None:
        yield f"off: {overlap.failure}"
    else:
        yield "off until warmup() measures them" if overlap.graphs is None else "off, measured to be slower"


def _times_of(
    layers: Iterable[Layer],
    predictions: Mapping[str, Prediction] | None,
    measured: Mapping[str, float] | None,
) -> dict[str, str]:
    """{heading: text} of the times of `layers` together."""
    names = [layer.name for layer in layers]
    cells, expected, taken = {}, None, None
    if predictions:
        together = reduce(add, (predictions[name] for name in names))
        expected = together.seconds
        cells |= {"predicted": f"{1e6 * expected:.1f}", "bound": together.bound}
    if measured:
        taken = sum(measured[name] for name in names)
        cells["measured"] = f"{1e6 * taken:.1f}"
    if expected and taken:
        cells["ratio"] = f"{expected / taken:.2f}"
    return cells


def _name(dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return str(channels) if height == width == 1 else f"{channels}x{height}x{width}"


def _convolution(layer: Layer) -> str:
    """Kernel, stride, padding where it is not symmetric, activation, and what is fused."""
    if layer.operator == "squeeze_excite_gate":
        return f"se {layer.squeeze} {layer.gate_function}"
    parts = [f"{layer.kernel}x{layer.kernel}"]
    if layer.is_whole_block:
        parts.insert(0, f"whole {layer.expanded},")  # explained under the table
    elif layer.expands:
        parts.insert(0, f"1x1 {layer.expand_activation},")
    if layer.stride != 1:
        parts.append(f"/{layer.stride}")
    if len(set(layer.padding)) > 1:
        parts.append(f"pad {','.join(map(str, layer.padding))}")
    if layer.activation != "identity":
        parts.append(layer.activation)
    if layer.is_stem_block:
        parts.append(f"> {layer.expanded}, dw {layer.depthwise_kernel}x{layer.depthwise_kernel}")
    if layer.squeeze:
        parts.append(f"se {layer.squeeze}")
    if layer.gate is not None:
        parts.append("* gate")
    if layer.residual is not None:
        parts.append("+ x")
    return " ".join(parts)
