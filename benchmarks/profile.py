"""Where the time goes: each step of an engine's plan timed inside whole calls, and grouped by what it is.

The times are those that torch's profiler notes around every operator while the engine runs as it always does,
so caches are as warm as in use. What is left of the call is the host: Python, the dispatcher, the profiler
itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

import effnet_fast
from effnet_fast.inference.cost import work
from effnet_fast.inference.layers import Layer

PREFIX = "effnet_fast::"

#: Groups in the order of the network.
GROUPS = (
    "stem",
    "expand",
    "depthwise",
    "expand + depthwise",
    "squeeze-excite",
    "project",
    "head",
    "classifier",
    "host",
)


class ProfileError(RuntimeError):
    """The steps of an engine cannot be told apart; the message says why."""


@dataclass(frozen=True)
class StepTime:
    """One step of the plan: median milliseconds of all its passes over one batch, and its multiply-adds."""

    name: str
    group: str
    operator: str
    shape: str
    passes: int
    milliseconds: float
    gmacs: float


def group_of(layer: Layer) -> str:
    """Which of `GROUPS` a step belongs to.

    `depthwise_conv_gate` computes its squeeze-excite itself; the projection applies the gate.
    """
    if layer.operator == "stem_conv":
        return "stem"
    if layer.operator == "head_pool":
        return "head"
    if layer.block == "classifier":
        return "classifier"
    if layer.operator == "squeeze_excite_gate":
        return "squeeze-excite"
    if layer.operator.startswith("expand_depthwise"):
        return "expand + depthwise"
    if layer.operator.startswith("depthwise"):
        return "depthwise"
    return "expand" if layer.name.endswith("expand") else "project"


def profile_engine(
    engine: effnet_fast.InferenceEngine, images: torch.Tensor, *, repeats: int
) -> list[StepTime]:
    """Run `engine(images)` `repeats` times; the last of the result is the host's share.

    Raises:
        ProfileError: the engine does not run one dispatcher operator for each step (the reference backend).
    """
    plan = engine.plan
    batch = images.shape[0]
    sequence = [
        (segment_index, layer_index)
        for segment_index, segment in enumerate(plan.segments)
        for _ in plan.passes(batch, segment)
        for layer_index in range(len(segment.layers))
    ]
    for _ in range(2):
        engine(images)
    samples: dict[tuple[int, int], list[float]] = {place: [] for place in sequence}
    hosts: list[float] = []
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
            start = time.perf_counter()
            engine(images)
            call = (time.perf_counter() - start) * 1e3
        durations = operator_milliseconds(profiled)
        if len(durations) != len(sequence):
            raise ProfileError(
                f"the plan has {len(sequence)} steps over this batch and {len(durations)} operators ran; "
                "profiles need a native backend"
            )
        totals = dict.fromkeys(samples, 0.0)
        for place, milliseconds in zip(sequence, durations, strict=True):
            totals[place] += milliseconds
        for place, milliseconds in totals.items():
            samples[place].append(milliseconds)
        hosts.append(max(0.0, call - sum(durations)))
    steps = [
        StepTime(
            name=layer.name,
            group=group_of(layer),
            operator=layer.operator,
            shape=shape_text(layer),
            passes=len(plan.passes(batch, segment)),
            milliseconds=statistics.median(samples[segment_index, layer_index]),
            gmacs=work(layer, batch, plan.dtype, plan.image_dtype).macs / 1e9,
        )
        for segment_index, segment in enumerate(plan.segments)
        for layer_index, layer in enumerate(segment.layers)
    ]
    return [*steps, StepTime("(host)", "host", "", "", 1, statistics.median(hosts), 0.0)]


def operator_milliseconds(profiled: profile) -> list[float]:
    """Durations of this package's outermost operators in the order in which they ran."""
    events = [event for event in profiled.events() if event.name.startswith(PREFIX)]
    events.sort(key=lambda event: event.time_range.start)
    durations, end = [], -1.0
    for event in events:
        if event.time_range.start >= end:  # not inside the one before: a composition calls its parts
            durations.append(event.time_range.elapsed_us() / 1e3)
            end = event.time_range.end
    return durations


def shape_text(layer: Layer) -> str:
    channels, height, width = layer.x.shape
    stride = f"/{layer.stride}" if layer.stride != 1 else ""
    return f"{channels}>{layer.y.shape[0]} k{layer.kernel}{stride} @{height}x{width}"


def group_rows(steps: Sequence[StepTime]) -> list[dict[str, object]]:
    """Time, multiply-adds and their shares for each group that occurs."""
    total = sum(step.milliseconds for step in steps)
    total_gmacs = sum(step.gmacs for step in steps)
    rows = []
    for group in GROUPS:
        members = [step for step in steps if step.group == group]
        if members:
            milliseconds, gmacs = sum(s.milliseconds for s in members), sum(s.gmacs for s in members)
            rows.append(
                {
                    "group": group,
                    "steps": len(members),
                    "milliseconds": milliseconds,
                    "share": milliseconds / total,
                    "gmacs_share": gmacs / total_gmacs,
                    "gmacs_per_second": gmacs / (milliseconds / 1e3) if milliseconds else 0.0,
                }
            )
    return rows


def groups_table(title: str, steps: Sequence[StepTime]) -> Table:
    """One line for each group."""
    table = Table(title=title, title_justify="left")
    table.add_column("group")
    for heading in ("steps", "ms", "share", "of multiply-adds", "GMAC/s"):
        table.add_column(heading, justify="right")
    for row in group_rows(steps):
        table.add_row(
            row["group"],
            str(row["steps"]),
            f"{row['milliseconds']:.3f}",
            f"{row['share']:.1%}",
            f"{row['gmacs_share']:.1%}",
            f"{row['gmacs_per_second']:.1f}" if row["gmacs_per_second"] else "-",
        )
    total = sum(step.milliseconds for step in steps)
    table.add_section()
    table.add_row(
        "all", str(len(steps)), f"{total:.3f}", "", "", f"{sum(s.gmacs for s in steps) / total * 1e3:.1f}"
    )
    return table


def steps_table(steps: Sequence[StepTime]) -> Table:
    """One line for each step."""
    table = Table(title="steps", title_justify="left")
    for heading in ("step", "operator", "shape"):
        table.add_column(heading, no_wrap=True)
    for heading in ("passes", "ms", "share", "GMAC/s"):
        table.add_column(heading, justify="right")
    total = sum(step.milliseconds for step in steps)
    for step in steps:
        rate = step.gmacs / step.milliseconds * 1e3 if step.milliseconds else 0.0
        table.add_row(
            step.name,
            step.operator,
            step.shape,
            str(step.passes),
            f"{step.milliseconds:.3f}",
            f"{step.milliseconds / total:.1%}",
            f"{rate:.1f}" if rate else "-",
        )
    return table


def rows(model: str, dtype: str, batch: int, steps: Sequence[StepTime]) -> list[dict[str, object]]:
    """Rows of the result file."""
    return [
        {
            "model": model,
            "dtype": dtype,
            "batch": batch,
            "step": step.name,
            "group": step.group,
            "operator": step.operator,
            "shape": step.shape,
            "passes": step.passes,
            "milliseconds": round(step.milliseconds, 5),
            "gmacs": round(step.gmacs, 6),
        }
        for step in steps
    ]
