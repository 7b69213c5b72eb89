"""What one call of an engine costs the host besides its kernels.

The engine's bound program is taken as it is, and every tensor that has images in it is narrowed to none: each
operator is still called with all of its arguments, checks them, finds nothing to do and returns. A call then
goes the whole way that a user's does (checks of the images, result, lock, inference mode, operators, copy of
the logits) around kernels that take no time. Waking the threads of a kernel belongs to the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

import effnet_fast
from effnet_fast.inference.program import Call, Program, assemble
from effnet_fast.measure import LocalCandidate, alternate


@dataclass(frozen=True)
class Overhead:
    """Microseconds of one call without its kernels, and what they go to.

    Attributes:
        operators: that a call runs.
        program: of calling all of them as the engine does, with their own checks.
        around: of `engine(images)` before and after that.
        dispatched: of calling the same operators one by one from Python through PyTorch's dispatcher. An
            engine does so under a profiler; it is no part of the total.
    """

    operators: int
    program: float
    around: float
    dispatched: float

    @property
    def total(self) -> float:
        return self.program + self.around


def emptied(program: Program, count: int) -> Program:
    """`program`, bound for `count` images, with none in any tensor of a call; its output is the real one."""
    passes = tuple(
        replace(
            step,
            begin=0,
            end=0,
            stem=None if step.stem is None else _without_images(step.stem),
            calls=tuple(_without_images(call) for call in step.calls),
        )
        for step in program.passes
    )
    return assemble(passes, program.output, count)


def _without_images(call: Call) -> Call:
    handle, arguments = call
    # Packed weights, means and deviations have one dimension; whatever has more begins with the images.
    return handle, tuple(
        value[:0] if isinstance(value, torch.Tensor) and value.dim() > 1 else value for value in arguments
    )


@contextmanager
def without_kernels(engine: effnet_fast.InferenceEngine, count: int) -> Iterator[Program]:
    """Within it `engine(images)` of `count` images runs the emptied program, which it gives; the engine's own
    program is looked up all the same.
    """
    runner = engine._runner
    lookup = runner.program
    program = emptied(lookup(count), count)

    def instead(images: int) -> Program:
        lookup(images)
        return program

    runner.program = instead
    try:
        yield program
    finally:
        del runner.program


def host_overhead(
    engine: effnet_fast.InferenceEngine, images: torch.Tensor, *, rounds: int = 7, min_seconds: float = 0.05
) -> Overhead:
    """Measure `engine(images)` for at most `engine.batch_size` images.

    Raises: ValueError for an engine that is not on a CPU (there the host's share is the latency of small
        batches, and a graph has no calls), or more images.
    """
    if engine.device.type != "cpu":
        raise ValueError(f"host_overhead: the engine is on {engine.device}; allowed: cpu")
    count = images.shape[0]
    if not 1 <= count <= engine.batch_size:
        raise ValueError(f"host_overhead: {count} images; allowed: 1 to {engine.batch_size}, one batch")
    with without_kernels(engine, count) as program:
        dispatched = replace(program, runs=())

        def inside(run: Program) -> LocalCandidate:
            def call() -> None:
                with torch.inference_mode():
                    run.run(images)

            return LocalCandidate(call)

        found = alternate(
            {
                "call": LocalCandidate(lambda: engine(images)),
                "program": inside(program),
                "dispatched": inside(dispatched),
            },
            rounds=rounds,
            min_seconds=min_seconds,
        )
    call, run, one_by_one = (1e6 * found[name].median for name in ("call", "program", "dispatched"))
    return Overhead(
        operators=sum(len(step.calls) + (step.stem is not None) for step in program.passes),
        program=run,
        around=call - run,
        dispatched=one_by_one,
    )
