"""Where the time goes: each step of an engine's plan, timed inside whole calls, and its ideal.

The times are those that torch's profiler notes around every operator inside whole calls, so caches are as
warm as in use. What is left of the call is the host: Python, the dispatcher, the profiler itself. For the
profiler a CPU engine calls its operators one by one, which costs a call without one nothing
(`effnet_fast.inference.native_program`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

import effnet_fast
from benchmarks.ideal import ideal_seconds, share_of_peak
from effnet_fast.inference.cost import work
from effnet_fast.inference.layers import Layer
from effnet_fast.measure.peaks import Peaks

PREFIX = "effnet_fast::"

#: Groups in the order of the network.
GROUPS = (
    "stem",
    "expand",
    "depthwise",
    "expand + depthwise",
    "squeeze-excite",
    "project",
    "whole block",
    "head",
    "classifier",
    "host",
)


class ProfileError(RuntimeError):
    """The steps of an engine cannot be told apart; the message says why."""


@dataclass(frozen=True)
class StepTime:
    """One step of the plan: median milliseconds of all its passes over one batch, and its multiply-adds.

    `ideal_ms` are the milliseconds that its arithmetic takes at the machine's peaks, None where those are not
    known.
    """

    name: str
    block: str
    group: str
    operator: str
    shape: str
    passes: int
    milliseconds: float
    gmacs: float
    ideal_ms: float | None = None


def group_of(layer: Layer) -> str:
    """Which of `GROUPS` a step belongs to.

    `depthwise_conv_gate` computes its squeeze-excite itself; the projection applies the gate.
    """
    if layer.operator == "stem_conv" or layer.is_stem_block:
        return "stem"
    if layer.operator == "head_pool":
        return "head"
    if layer.block == "classifier":
        return "classifier"
    if layer.operator == "squeeze_excite_gate":
        return "squeeze-excite"
    if layer.is_whole_block:
        return "whole block"
    if layer.operator.startswith("expand_depthwise"):
        return "expand + depthwise"
    if layer.operator.startswith("depthwise"):
        return "depthwise"
    return "expand" if layer.name.endswith("expand") else "project"


def profile_engine(
    engine: effnet_fast.InferenceEngine, images: torch.Tensor, *, repeats: int, peaks: Peaks | None = None
) -> list[StepTime]:
    """Run `engine(images)` `repeats` times; the last of the result is the host's share.

    `peaks` of the engine's threads give every step its `ideal_ms`.

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

    def ideal_ms(layer: Layer) -> float | None:
        if peaks is None:
            return None
        return 1e3 * ideal_seconds(layer, batch, plan.dtype, plan.image_dtype, peaks)

    steps = [
        StepTime(
            name=layer.name,
            block=layer.block,
            group=group_of(layer),
            operator=layer.operator,
            shape=shape_text(layer),
            passes=len(plan.passes(batch, segment)),
            milliseconds=statistics.median(samples[segment_index, layer_index]),
            gmacs=work(layer, batch, plan.dtype, plan.image_dtype).macs / 1e9,
            ideal_ms=ideal_ms(layer),
        )
        for segment_index, segment in enumerate(plan.segments)
        for layer_index, layer in enumerate(segment.layers)
    ]
    return [*steps, StepTime("(host)", "(host)", "host", "", "", 1, statistics.median(hosts), 0.0)]


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
    """Channels in and out (for a whole block also those between), kernel, stride and size of the input."""
    channels, height, width = layer.x.shape
    stride = f"/{layer.stride}" if layer.stride != 1 else ""
    inside = f"{layer.expanded}>" if layer.expanded else ""
    return f"{channels}>{inside}{layer.y.shape[0]} k{layer.kernel}{stride} @{height}x{width}"


def rows(model: str, dtype: str, batch: int, steps: Sequence[StepTime]) -> list[dict[str, object]]:
    """Rows of the result file."""
    return [
        {
            "model": model,
            "dtype": dtype,
            "batch": batch,
            "step": step.name,
            "block": step.block,
            "group": step.group,
            "operator": step.operator,
            "shape": step.shape,
            "passes": step.passes,
            "milliseconds": round(step.milliseconds, 5),
            "gmacs": round(step.gmacs, 6),
            "ideal_ms": None if step.ideal_ms is None else round(step.ideal_ms, 5),
            "of_peak": _rounded(share_of_peak(step.ideal_ms, step.milliseconds)),
        }
        for step in steps
    ]


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
