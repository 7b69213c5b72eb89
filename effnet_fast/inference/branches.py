"""The memory of two branches: a plan of which two halves of a batch may run side by side.

Inside a stretch nothing orders the first half against the second, so that a value of one must not lie where
any value of the other does, whenever they live. Each half therefore has a region of its own, in which values
take each other's places as in any plan; for all else the two regions are one buffer that lives as long as the
stretch. A value that enters or leaves the stretch is one map of the whole batch, of which each half has its
part; it lives throughout the stretch, for one half may be at its end while the other begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from effnet_fast.inference.arena import Interval, extent, peak, place
from effnet_fast.inference.capacity import EngineMemoryError
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.gpu_cost import predict_on_gpu
from effnet_fast.inference.layers import IMAGE, Layer
from effnet_fast.inference.overlap import Overlap, choose_overlap, every_block
from effnet_fast.inference.planner import Buffer, Plan, Segment, lifetimes, working_set_bytes
from effnet_fast.measure.gpu_rates import GpuRates, measured_rates

__all__ = ["MOST_MEMORY", "branch_predictor", "predicted_overlap", "resolve_branches", "two_branch_plan"]

#: Of the arena for one branch. For B0..B7 a stretch that begins with the first block, at the largest maps,
#: takes up to 1.4 times as much; from stage 1 on 1.15 times at most, 1.02 times with the expansion fused.
MOST_MEMORY = 1.15


def resolve_branches(
    plan: Plan, overlap: bool | str, device: torch.device, fits: Callable[[int], None]
) -> tuple[Plan, Plan | None]:
    """`plan` with the stretches that two branches may have, and the plan that has them; None: there are none.

    Args:
        plan: of an engine that captures graphs.
        overlap: False: none; True: every block; "auto": where it is predicted to pay and hardly takes more
            memory, as long as that fits.
        device: whose measured rates the predictions are made with.
        fits: takes the bytes of arena beyond the plan's, and raises EngineMemoryError where they do not fit.
    """
    if overlap is False or plan.batch < 2:
        return plan, None
    if overlap is True:
        chosen = every_block(plan.layers)
    else:
        chosen = predicted_overlap(plan, measured_rates(device, plan.dtype))
    plan = dataclasses.replace(plan, overlap=chosen)
    if not chosen.stretches:
        return plan, None
    branched = two_branch_plan(plan, chosen.bounds)
    try:
        fits(max(0, branched.arena_bytes - plan.arena_bytes))
    except EngineMemoryError as error:
        if overlap is True:
            raise
        return dataclasses.replace(plan, overlap=dataclasses.replace(chosen, failure=str(error))), None
    return plan, branched


def predicted_overlap(plan: Plan, rates: GpuRates) -> Overlap:
    """What "auto" takes: stretches of `plan` that are predicted to pay and hardly take more memory. Pure."""
    predicted, skip = branch_predictor(plan, rates), 0
    chosen = choose_overlap(plan.layers, plan.batch, predicted)
    while chosen.stretches and _arena_bytes(plan, chosen) > MOST_MEMORY * plan.arena_bytes:
        skip += 1
        chosen = choose_overlap(plan.layers, plan.batch, predicted, skip=skip)
    return chosen


def branch_predictor(plan: Plan, rates: GpuRates) -> Callable[[Layer, int], Prediction]:
    """A function for `choose_overlap`: layer, images -> prediction, of the whole batch or of half of it."""

    def predicted(layer: Layer, images: int) -> Prediction:
        # Both halves are in the cache at once.
        both = plan.batch * working_set_bytes(layer, plan.dtype, plan.image_dtype)
        return predict_on_gpu(layer, images, plan.dtype, plan.image_dtype, rates, working_set=both)

    return predicted


def two_branch_plan(plan: Plan, stretches: Sequence[tuple[int, int]]) -> Plan:
    """`plan` with two branches in `stretches`, and everything else as it was.

    Args:
        plan: of one segment, the whole batch of at least 2 images at a time.
        stretches: [begin, end) of their steps, ascending; each of whole blocks, behind all that read images.

    Raises: ValueError for another plan or other stretches.

    Deterministic, and pure: equal arguments give equal plans.
    """
    if len(plan.segments) != 1 or plan.segments[0].images != plan.batch or plan.batch < 2:
        raise ValueError(
            f"two branches need a plan that takes a whole batch of at least 2 images at a time, got "
            f"{len(plan.segments)} segments and batch {plan.batch}"
        )
    segments = _cut(plan, stretches)
    intervals, values = lifetimes(segments, plan.batch, plan.dtype)
    regions: dict[int, list[Interval]] = {}  # number of the segment -> what lives in one branch of it
    whole = []
    for interval in intervals:
        number = _segment_of(interval, segments) if values[interval.name][2] < plan.batch else None
        (whole if number is None else regions.setdefault(number, [])).append(interval)

    offsets: dict[str, int] = {}
    second: dict[str, int] = {}
    placed, fewest = list(whole), list(whole)
    for number, inner in regions.items():
        first, last = _bounds(segments, number)
        name = f"branches of steps {first} to {last}"
        size = extent(inner, inside := place(inner))
        offsets |= inside
        second |= {one: size + offset for one, offset in inside.items()}
        placed.append(Interval(name, 2 * size, first, last))
        fewest.append(Interval(name, 2 * peak(inner), first, last))
    outside = place(placed)
    for number, inner in regions.items():
        first, last = _bounds(segments, number)
        region = outside[f"branches of steps {first} to {last}"]
        for interval in inner:
            offsets[interval.name] += region
            second[interval.name] += region
    return dataclasses.replace(
        plan,
        segments=segments,
        buffers={
            name: Buffer(value, dtype, images, (outside | offsets)[name], first, last, second.get(name))
            for name, (value, dtype, images, first, last) in values.items()
        },
        arena_bytes=extent(placed, outside),
        peak_bytes=peak(fewest),
    )


def _arena_bytes(plan: Plan, chosen: Overlap) -> int:
    return two_branch_plan(plan, chosen.bounds).arena_bytes


def _cut(plan: Plan, stretches: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """The plan's one segment, cut at the borders of `stretches`."""
    layers, segments, done = plan.layers, [], 0
    for begin, end in stretches:
        if not done <= begin < end <= len(layers):
            raise ValueError(f"stretches must be ascending runs of the {len(layers)} steps, got {stretches}")
        if any(layer.x.name == IMAGE for layer in layers[begin:]):
            raise ValueError(f"what reads the images comes before two branches, not at step {begin} or after")
        for edge in (begin, end):
            if edge < len(layers) and layers[edge - 1].block == layers[edge].block:
                raise ValueError(f"a stretch must not divide a block, got {layers[edge].block} cut in two")
        if begin > done:
            segments.append(Segment(layers[done:begin], plan.batch))
        segments.append(Segment(layers[begin:end], -(-plan.batch // 2), branches=2))
        done = end
    if done < len(layers):
        segments.append(Segment(layers[done:], plan.batch))
    return tuple(segments)


def _bounds(segments: Sequence[Segment], number: int) -> tuple[int, int]:
    """First and last step of a segment."""
    first = sum(len(segment.layers) for segment in segments[:number])
    return first, first + len(segments[number].layers) - 1


def _segment_of(interval: Interval, segments: Sequence[Segment]) -> int:
    return next(n for n in range(len(segments)) if interval.first <= _bounds(segments, n)[1])
