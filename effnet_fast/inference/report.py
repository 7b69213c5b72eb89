"""What an engine says about itself: its plan as a table, its memory as a line."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_fast.inference.layers import Layer

if TYPE_CHECKING:
    from effnet_fast.inference.planner import Plan

__all__ = ["MemoryReport", "format_bytes", "plan_table"]

_WIDTH = 118


@dataclass(frozen=True)
class MemoryReport:
    """Bytes that an engine holds.

    Attributes:
        arena_bytes: the one allocation in which every activation lies.
        weight_bytes: packed weights, the engine's only copy.
        peak_bytes: most bytes of activations that are live at any one step, at most `arena_bytes`; the
            difference is lost to placement and alignment.
    """

    arena_bytes: int
    weight_bytes: int
    peak_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.arena_bytes + self.weight_bytes

    def __str__(self) -> str:
        return (
            f"activations {format_bytes(self.arena_bytes)} (live at most {format_bytes(self.peak_bytes)}), "
            f"weights {format_bytes(self.weight_bytes)}, together {format_bytes(self.total_bytes)}"
        )


def format_bytes(count: int) -> str:
    """1536 -> "1.5 KiB"."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def plan_table(plan: Plan) -> str:
    """The plan as text: a row for every operator, a rule between segments."""
    # Only who prints a plan pays for the import.
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"batch {plan.batch}, {plan.image_size[0]} x {plan.image_size[1]}, "
        f"{_name(plan.dtype)} ({_name(plan.image_dtype)} images), {plan.threads} threads",
        title_justify="left",
        caption=f"arena {format_bytes(plan.arena_bytes)}, live at most {format_bytes(plan.peak_bytes)}; "
        "bytes: read and written for one image, weights aside",
        caption_justify="left",
    )
    table.add_column("block")
    table.add_column("operator")
    table.add_column("convolution")
    table.add_column("in")
    table.add_column("out")
    table.add_column("bytes", justify="right")
    table.add_column("images a pass", justify="right")
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
            )
            block = layer.block
        table.add_section()
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _name(dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return str(channels) if height == width == 1 else f"{channels} x {height} x {width}"


def _convolution(layer: Layer) -> str:
    """Kernel, stride, padding where it is not symmetric, activation, and what is fused."""
    if layer.operator == "squeeze_excite_gate":
        return f"se {layer.squeeze} {layer.gate_function}"
    parts = [f"{layer.kernel}x{layer.kernel}"]
    if layer.operator.startswith("expand_depthwise"):
        parts.insert(0, f"1x1 {layer.expand_activation},")
    if layer.stride != 1:
        parts.append(f"/{layer.stride}")
    if len(set(layer.padding)) > 1:
        parts.append(f"pad {','.join(map(str, layer.padding))}")
    if layer.activation != "identity":
        parts.append(layer.activation)
    if layer.squeeze:
        parts.append(f"se {layer.squeeze}")
    if layer.gate is not None:
        parts.append("* gate")
    if layer.residual is not None:
        parts.append("+ x")
    return " ".join(parts)
