"""The plan of an engine: a pure function from layer shapes and limits to steps, segments and buffer offsets.

**Segments (depth-first sub-batching).** A batch goes through the network in runs of blocks. Inside a segment
only a few images are on their way at a time, so that what one operator writes is still in cache when the next
one reads it; the segment is repeated until the batch is done, and the next one starts. The early,
high-resolution blocks take few images at a time, the late ones many, so that their large weights are read few
times. Only the maps between segments are held for the whole batch.

**Images at a time.** With `threads` threads and a cache budget of B bytes, a block whose largest step reads
and writes b bytes an image (its x and its y) gets

    min(batch, max(threads, floor(B / b)))          images, rounded down to a multiple of `threads`

and never more than a block after it (else a large early map would be held for the whole batch to save
nothing). The passes of a segment are then made equal in length: 16 images at 7 are 6 + 6 + 4.

A block that could have more images than the one before it still takes as few, where the map between them
would not stay in the cache for the whole batch and is larger, written and read, than the weights that the
additional passes read. (B0 in bfloat16, 16 images: stem at 4 and first block at 6 images at a time had cost
2.3 % of the network, for 1.2 KiB of weights.)

**Buffers.** A value lives from the step that writes it to the last step that reads it, one that crosses a
segment boundary through those of both segments that take several passes. All of them lie in one arena at
offsets known before the first image. Where two passes may run side by side, see `branches.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from effnet_fast.inference.arena import Interval, extent, peak, place
from effnet_fast.inference.layers import IMAGE, Layer, Value, block_operators
from effnet_fast.inference.report import plan_table
from effnet_fast.inference.scratch import scratch_bytes
from effnet_fast.inference.weight_counts import weight_bytes

if TYPE_CHECKING:
    from effnet_fast.inference.cost import Prediction
    from effnet_fast.inference.overlap import Overlap

__all__ = ["Buffer", "Plan", "Segment", "halves", "images_per_pass", "passes", "plan_network"]


@dataclass(frozen=True)
class Segment:
    """A run of layers that is executed for `images` images at a time.

    With two `branches` it has two passes, and memory for each of them, so that they may run side by side.
    """

    layers: tuple[Layer, ...]
    images: int
    branches: int = 1


@dataclass(frozen=True)
class Buffer:
    """Where a value lies: `images` images of it from byte `offset` on, live from step `first` to `last`.

    `second` is the offset for the second pass, where a value of one pass has memory in each of two branches.
    """

    value: Value
    dtype: torch.dtype
    images: int
    offset: int
    first: int
    last: int
    second: int | None = None

    @property
    def nbytes(self) -> int:
        return self.images * self.value.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """What an engine does for `batch` images or fewer.

    Attributes:
        batch: most images at once.
        image_size: (height, width).
        dtype: of the maps between operators.
        image_dtype: of the images.
        threads: passes are multiples of this many images where the batch allows it.
        segments: in order of execution.
        buffers: {value name: place in the arena}.
        arena_bytes: size of the arena.
        peak_bytes: most bytes of the arena that are live at any one step; no arena can be smaller.
        overlap: which steps two halves of a batch may go through side by side, where it was asked.
        predictions: {layer name: what the cost model says of a full batch}, where it was asked.
        measured: {layer name: seconds of a full batch}, after `InferenceEngine.warmup`.
    """

    batch: int
    image_size: tuple[int, int]
    dtype: torch.dtype
    image_dtype: torch.dtype
    threads: int
    segments: tuple[Segment, ...]
    buffers: dict[str, Buffer]
    arena_bytes: int
    peak_bytes: int
    overlap: Overlap | None = None
    predictions: Mapping[str, Prediction] | None = None
    measured: Mapping[str, float] | None = None

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every step, in order."""
        return tuple(layer for segment in self.segments for layer in segment.layers)

    @cached_property
    def scratch_bytes(self) -> int:
        """Most bytes that any step's kernel takes for itself besides the arena; see `scratch_bytes`."""
        return max(
            scratch_bytes(layer, segment.images, self.dtype, self.threads)
            for segment in self.segments
            for layer in segment.layers
        )

    @property
    def output(self) -> Value:
        """What the last step writes: the logits."""
        return self.layers[-1].y

    def passes(self, images: int, segment: Segment) -> list[tuple[int, int]]:
        """[begin, end) of every pass of `segment` over `images` images, at most `batch`."""
        if segment.branches == 2 and images > 1:
            return halves(images)
        return passes(images, segment.images, self.threads)

    def step_bytes(self, layer: Layer) -> int:
        """Bytes of one image that `layer` reads and writes, weights aside."""
        return step_bytes(layer, self.dtype, self.image_dtype)

    def __str__(self) -> str:
        return plan_table(self)


def plan_network(
    layers: Sequence[Layer],
    *,
    batch: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype | None = None,
    threads: int = 1,
    budget_bytes: int | None = None,
) -> Plan:
    """Plan `layers` (see `network_layers`) for up to `batch` images.

    Args:
        layers: the operators, in order of execution.
        batch: images that the arena must hold, at least 1.
        dtype: of the maps between operators.
        image_dtype: of the images (default: `dtype`).
        threads: threads that share a pass.
        budget_bytes: bytes that the x and y of one step should fit (see `CpuLimits.budget_bytes`); None for
            no limit, which gives one segment with the whole batch.

    Deterministic: equal arguments give equal plans.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    image_dtype = dtype if image_dtype is None else image_dtype
    segments = _segments(layers, batch, dtype, image_dtype, threads, budget_bytes)
    intervals, buffers = lifetimes(segments, batch, dtype)
    offsets = place(intervals)
    _, height, width = layers[0].x.shape
    return Plan(
        batch=batch,
        image_size=(height, width),
        dtype=dtype,
        image_dtype=image_dtype,
        threads=threads,
        segments=segments,
        buffers={
            name: Buffer(value, value_dtype, images, offsets[name], first, last)
            for name, (value, value_dtype, images, first, last) in buffers.items()
        },
        arena_bytes=extent(intervals, offsets),
        peak_bytes=peak(intervals),
    )


def value_dtype(value: Value, dtype: torch.dtype) -> torch.dtype:
    """Dtype in which `value` is stored in a network whose maps have `dtype`."""
    return torch.float32 if value.single else dtype


def step_bytes(layer: Layer, dtype: torch.dtype, image_dtype: torch.dtype) -> int:
    """Bytes of one image that `layer` reads and writes, weights aside."""
    total = layer.x.numel * image_dtype.itemsize if layer.x.name == IMAGE else 0
    return total + sum(v.numel * value_dtype(v, dtype).itemsize for v in (*layer.reads, *layer.writes))


def working_set_bytes(layer: Layer, dtype: torch.dtype, image_dtype: torch.dtype) -> int:
    """Bytes of the x and y of one image: what the rule for the images at a time counts."""
    x_dtype = image_dtype if layer.x.name == IMAGE else value_dtype(layer.x, dtype)
    return layer.x.numel * x_dtype.itemsize + layer.y.numel * value_dtype(layer.y, dtype).itemsize


def images_per_pass(working_set: int, batch: int, threads: int, budget_bytes: int | None) -> int:
    """Images at a time for a block whose largest step takes `working_set` bytes an image."""
    if budget_bytes is None:
        return batch
    fitting = max(threads, budget_bytes // max(1, working_set))
    return min(batch, fitting // threads * threads)


def pass_length(images: int, most: int, threads: int) -> int:
    """Images of each pass but the last: as equal as multiples of `threads` can be, at most `most`."""
    if images <= most:
        return images
    count = -(-images // most)
    length = -(-images // count)
    return min(most, -(-length // threads) * threads)


def passes(images: int, most: int, threads: int) -> list[tuple[int, int]]:
    """[begin, end) of nearly equal runs of at most `most` images, multiples of `threads` but for the last."""
    if images <= 0:
        return []
    length = pass_length(images, most, threads)
    return [(begin, min(begin + length, images)) for begin in range(0, images, length)]


def halves(images: int) -> list[tuple[int, int]]:
    """[begin, end) of the two halves of at least 2 images, the first the larger: 5 are 3 + 2."""
    middle = -(-images // 2)
    return [(0, middle), (middle, images)]


def _segments(
    layers: Sequence[Layer],
    batch: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    threads: int,
    budget_bytes: int | None,
) -> tuple[Segment, ...]:
    blocks = list(block_operators(layers))
    segments: list[Segment] = []
    most = batch
    for block in reversed(blocks):
        working_set = max(working_set_bytes(layer, dtype, image_dtype) for layer in block)
        most = min(most, images_per_pass(working_set, batch, threads, budget_bytes))
        # Equal passes first: 9 and 15 images at a time out of 16 are both two passes of 8, hence one segment.
        images = pass_length(batch, most, threads)
        if segments and segments[-1].images == images:
            segments[-1] = Segment(block + segments[-1].layers, images)
        else:
            segments.append(Segment(block, images))
    segments.reverse()
    if budget_bytes is None:
        return tuple(segments)
    return tuple(_joined(segments, batch, dtype, budget_bytes))


def _joined(
    segments: Sequence[Segment], batch: int, dtype: torch.dtype, budget_bytes: int
) -> Iterator[Segment]:
    """`segments`, where one takes the first blocks of the next that gain nothing by more images at a time."""
    current = segments[0]
    for segment in segments[1:]:
        rest = list(block_operators(segment.layers))
        while rest:
            between = current.layers[-1].y
            map_bytes = between.numel * value_dtype(between, dtype).itemsize
            weights = sum(weight_bytes(layer, dtype.itemsize) for layer in rest[0])
            read_again = weights / current.images - weights / segment.images  # per image
            if batch * map_bytes <= budget_bytes or read_again >= 2 * map_bytes:
                break
            current = replace(current, layers=current.layers + rest.pop(0))
        if rest:
            yield current
            current = Segment(tuple(layer for block in rest for layer in block), segment.images)
    yield current


def lifetimes(
    segments: Sequence[Segment], batch: int, dtype: torch.dtype
) -> tuple[list[Interval], dict[str, tuple[Value, torch.dtype, int, int, int]]]:
    """Interval of every value, and (value, dtype, images, first step, last step) by its name."""
    written: dict[str, tuple[Value, int, int]] = {}  # name -> value, segment, step
    read: dict[str, tuple[int, int]] = {}  # name -> segment and step of the last reader
    bounds: list[tuple[int, int]] = []
    step = 0
    for number, segment in enumerate(segments):
        bounds.append((step, step + len(segment.layers) - 1))
        for layer in segment.layers:
            for value in layer.reads:
                if value.name not in written:
                    raise ValueError(
                        f"layer {layer.name} reads {value.name}, which no layer before it writes"
                    )
                read[value.name] = (number, step)
            for value in layer.writes:
                if value.name in written:
                    raise ValueError(f"layer {layer.name} writes {value.name}, which is written already")
                written[value.name] = (value, number, step)
            step += 1
    end = (len(segments) - 1, step - 1)
    intervals, buffers = [], {}
    for name, (value, first_segment, first) in written.items():
        # What nothing reads is the result: it must survive until the end, over every pass.
        last_segment, last = read.get(name, end)
        images = segments[first_segment].images
        if name not in read or last_segment != first_segment:
            # Several passes: the first may write while the last has yet to read. One pass is in order anyway.
            if segments[first_segment].images < batch:
                first = bounds[first_segment][0]
            if segments[last_segment].images < batch:
                last = bounds[last_segment][1]
            images = batch
        stored = value_dtype(value, dtype)
        intervals.append(Interval(name, images * value.numel * stored.itemsize, first, last))
        buffers[name] = (value, stored, images, first, last)
    return intervals, buffers
