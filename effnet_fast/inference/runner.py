"""The running half of an engine: a plan's memory, its bound programs, its graphs, and whose turn it is."""

from __future__ import annotations

import logging
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from effnet_fast.backends import Backend
from effnet_fast.inference.graphs import CapturedProgram
from effnet_fast.inference.inputs import ImageSpec
from effnet_fast.inference.overlap import Overlap
from effnet_fast.inference.planner import Plan
from effnet_fast.inference.program import Program, allocate_arena, bind
from effnet_fast.inference.schedule import Schedule, calibrate
from effnet_fast.inference.step_times import step_seconds

__all__ = ["Runner"]

_logger = logging.getLogger("effnet_fast")

# Programs kept: the full batch, its rest, and a few sizes of irregular callers. One is about 0.3 MB.
_PROGRAMS = 8

# Calls of one measurement when a schedule is calibrated; 3 more come before it.
_CALLS = 10

# By how much of its time two branches must beat one: medians of so few calls are no closer than that, and one
# branch is the simpler graph.
_CLEARLY = 0.02


class Runner:
    """Runs up to `plan.batch` images at a time. Not thread-safe: its engine holds a lock.

    Args:
        plan, weights, backends, normalisation: as `bind` takes them.
        spec: of the images.
        graphs: whether a batch is replayed as a CUDA graph.
        two_branches: the same steps as `plan`, some of them as two branches; None: there are none. Only
            `warm_up` makes use of it, for the graphs that it measures to be faster so.
        forced: every graph of 2 images or more has two branches, unmeasured.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, Tensor],
        backends: Mapping[str, Backend],
        normalisation: tuple[Tensor | None, Tensor | None],
        spec: ImageSpec,
        *,
        graphs: bool,
        two_branches: Plan | None = None,
        forced: bool = False,
    ):
        self.plan = plan
        self.graphs = graphs
        self.plans = (plan,) if two_branches is None else (plan, two_branches)
        # One for both: graphs and everything else take turns.
        self.arena = allocate_arena(max(self.plans, key=lambda one: one.arena_bytes), spec.device)
        self._two_branches, self._forced = two_branches, forced
        self._faster: dict[int, bool] = {}  # bucket: whether two branches are, where it was measured
        self._failure: str | None = None
        self.schedule = Schedule.always_padded(plan.batch)
        self._weights, self._backends, self._normalisation = weights, backends, normalisation
        self._spec = spec
        self._programs: OrderedDict[int, Program] = OrderedDict()
        self._captured: dict[int, CapturedProgram] = {}
        given = (tensor for tensor in normalisation if tensor is not None)
        memory = (self.arena, *weights.values(), *given)
        self._turns = _Turns(spec.device, memory) if spec.device.type == "cuda" else None

    def run(self, images: Tensor, logits: Tensor) -> None:
        """Write the logits of `images`, which the spec has checked, for any number of them.

        They are prepared a batch at a time: a large set in another memory is never copied whole.
        """
        with self._turn() as capturing:
            for begin in range(0, images.shape[0], self.plan.batch):
                part = self._spec.prepare(images[begin : begin + self.plan.batch])
                logits[begin : begin + part.shape[0]].copy_(self._forward(part, graphs=not capturing))

    def _forward(self, images: Tensor, *, graphs: bool) -> Tensor:
        count = images.shape[0]
        bucket = self.schedule.choose(count) if graphs and self.graphs else None
        return (self.program(count) if bucket is None else self.captured(bucket)).run(images)

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Hold the arena on the current stream; gives whether the caller is capturing a graph of its own."""
        if self._turns is None:
            yield False
            return
        # First of all: which stream is current, and whether it captures, is a question to a device.
        with torch.cuda.device(self._spec.device):
            if torch.cuda.is_current_stream_capturing():
                # Its own kernels are captured one by one; a graph cannot contain another, nor wait for a
                # stream outside of it.
                yield True
            else:
                with self._turns:
                    yield False

    def program(self, count: int) -> Program:
        """The program bound for `count` images; the least recently used one of many is dropped."""
        program = self._programs.get(count)
        if program is None:
            program = bind(self.plan, count, self.arena, self._weights, self._backends, self._normalisation)
            self._programs[count] = program
            if len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(count)
        return program

    def captured(self, bucket: int) -> CapturedProgram:
        """The graph of `bucket` images, captured when it is first asked for."""
        captured = self._captured.get(bucket)
        if captured is None:
            forced = self._forced and bucket > 1
            captured = self._branched(bucket) if forced else self._straight(bucket)
            self._captured[bucket] = captured
        return captured

    @property
    def overlap(self) -> Overlap | None:
        """The plan's, with the graphs that do run as two branches by now."""
        if self.plan.overlap is None or self._two_branches is None:
            return self.plan.overlap
        if self._forced:
            graphs = tuple(bucket for bucket in self.schedule.fewest if bucket > 1)
        elif self._faster:
            graphs = tuple(bucket for bucket, faster in self._faster.items() if faster)
        else:
            graphs = None
        return replace(self.plan.overlap, graphs=graphs, failure=self._failure)

    def _straight(self, bucket: int) -> CapturedProgram:
        return CapturedProgram(self.program(bucket), self.zeros(bucket))

    def _branched(self, bucket: int) -> CapturedProgram:
        # Bound for the capture alone: what the graph reads and writes lies in the arena.
        program = bind(
            self._two_branches, bucket, self.arena, self._weights, self._backends, self._normalisation
        )
        return CapturedProgram(program, self.zeros(bucket))

    def zeros(self, count: int) -> Tensor:
        """`count` black images (or all of the mean), as the stem takes them."""
        return self._spec.prepare(self._spec.zeros(count))

    def warm_up(self) -> None:
        """Touch every page of the arena; with graphs: capture all, and measure what a rest does best."""
        with self._turn():
            self.program(self.plan.batch).run(self.zeros(self.plan.batch))
            if self.graphs:
                self.schedule = calibrate(
                    self.plan.batch,
                    self._graph_seconds,
                    lambda count: self._seconds(self.program(count).run, count),
                )

    def step_seconds(self) -> dict[str, float]:
        """{layer name: seconds} of a full batch, kernel by kernel."""
        with self._turn():
            return step_seconds(self.program(self.plan.batch), self.zeros(self.plan.batch))

    def _graph_seconds(self, bucket: int) -> float:
        """Seconds of the graph of `bucket` images; of one branch and two, the faster becomes that graph."""
        seconds = self._seconds(self.captured(bucket).run, bucket)
        if self._two_branches is None or self._forced or bucket < 2 or bucket in self._faster:
            return seconds
        try:
            branched = self._branched(bucket)
        except RuntimeError as error:
            # One branch does the same. What two need beyond it (memory of a second stream, a fork in a
            # capture) is no reason to fail, but one to say so.
            self._failure = str(error).partition("\n")[0]
            self._faster[bucket] = False
            _logger.warning("two branches in a graph of %d images: %s; it has one", bucket, self._failure)
            return seconds
        beside = self._seconds(branched.run, bucket)
        self._faster[bucket] = beside < (1 - _CLEARLY) * seconds
        if not self._faster[bucket]:
            return seconds
        self._captured[bucket] = branched
        return beside

    def _seconds(self, run: Callable[[Tensor], object], count: int) -> float:
        images = self.zeros(count)
        samples = []
        for _ in range(3 + _CALLS):
            torch.cuda.synchronize(self._spec.device)
            begin = time.perf_counter()
            run(images)
            torch.cuda.synchronize(self._spec.device)
            samples.append(time.perf_counter() - begin)
        return statistics.median(samples[3:])


class _Turns:
    """Streams take turns at some device memory: each waits, on the device, for the one before it.

    Args:
        device: of the memory.
        memory: tensors made on the stream that is current now, which therefore has the first turn: kernels
            that fill them, or still use what lay there before, may be on their way. PyTorch gives their
            memory away no earlier than every stream that had a turn is done with it.
    """

    def __init__(self, device: torch.device, memory: Iterable[Tensor]):
        self._device, self._memory = device, tuple(memory)
        self._last = torch.cuda.current_stream(device)
        self._announced = {self._last}
        self._done = torch.cuda.Event()
        self._done.record(self._last)

    def __enter__(self) -> None:
        stream = torch.cuda.current_stream(self._device)
        if stream == self._last:
            return
        stream.wait_event(self._done)
        if stream not in self._announced:
            for tensor in self._memory:
                tensor.record_stream(stream)
            self._announced.add(stream)
        self._last = stream

    def __exit__(self, *_: object) -> None:
        self._done.record(self._last)
