"""A bound program as a CUDA graph: everything after the stem is one launch.

The stem stays outside: it reads the caller's images where they lie, in any layout and dtype, so that no copy
into a fixed place is needed and one graph serves them all. The stem also writes only the images that are
there; the graph runs its whole bucket over them. A first block that is computed with the stem stays outside
with it (`program.Opening`): three launches, where batches are large enough to hide them.

Where the program has calls that may run beside each other (`overlap.py`), the graph forks into two branches
and joins them again: a second stream, captured with the first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effnet_fast.inference.program import Call, Pass, Program

__all__ = ["CapturedProgram"]


class CapturedProgram:
    """The graph of a program whose first pass alone has a stem. Not thread-safe: one arena is behind it.

    Args:
        program: bound for as many images as the graph runs. It is run twice, on zeros: kernels are compiled,
            and lazily made workspaces exist, before anything is captured.
        images: [n, C, H, W] to run it on.

    Raises: ValueError for a program with several stems.

    The graph is captured on a stream of its own in thread-local mode: other threads may go on using CUDA.
    """

    def __init__(self, program: Program, images: Tensor):
        stems = [step.stem for step in program.passes]
        if stems[0] is None or any(stem is not None for stem in stems[1:]):
            raise ValueError("a graph is made of a program that reads the images in its first pass alone")
        self._stem, (self._y, *self._rest) = stems[0]
        self.output = program.output
        self._graph = torch.cuda.CUDAGraph()
        for _ in range(2):
            program.run(images)
        side = torch.cuda.Stream(images.device)
        capture = torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local")
        # Where a capture fails, its own context leaves `side` the current stream; the one around it does not.
        with torch.cuda.stream(side), capture:
            for step in program.passes:
                if step.beside:
                    _capture_branches(step, side, torch.cuda.Stream(images.device))
                else:
                    for call in step.calls:
                        _run(call)

    def run(self, images: Tensor) -> Tensor:
        """Logits of 1 to n `images`; valid until the arena is used again."""
        count = images.shape[0]
        self._stem(self._y[:count], images, *self._rest)
        self._graph.replay()
        return self.output[:count]


def _capture_branches(step: Pass, stream: torch.cuda.Stream, other: torch.cuda.Stream) -> None:
    """Capture `step.calls` on `stream`, which is current, and `step.beside` on `other`, joined at the end.

    `other` forks behind the first call, so that it stays a kernel behind: else the same kernels of both
    halves would meet, which need the same resource. Calls are captured in the order in which they should run,
    since kernels that are ready at the same time may be started in that order.
    """
    first, *calls = step.calls
    _run(first)
    other.wait_stream(stream)
    for call, beside in zip([*calls, None], step.beside, strict=True):
        with torch.cuda.stream(other):
            _run(beside)
        if call is not None:
            _run(call)
    stream.wait_stream(other)


def _run(call: Call) -> None:
    operator, arguments = call
    operator(*arguments)
