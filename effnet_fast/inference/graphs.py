"""A bound program as a CUDA graph: everything after the stem is one launch.

The stem stays outside: it reads the caller's images where they lie, in any layout and dtype, so that no copy
into a fixed place is needed and one graph serves them all. The stem also writes only the images that are
there; the graph runs its whole bucket over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effnet_fast.inference.program import Program

__all__ = ["CapturedProgram"]


class CapturedProgram:
    """The graph of a program of one pass. Not thread-safe: one arena is behind it.

    Args:
        program: bound for as many images as the graph runs. It is run twice, on zeros: kernels are compiled,
            and lazily made workspaces exist, before anything is captured.
        images: [n, C, H, W] to run it on.

    The graph is captured on a stream of its own in thread-local mode: other threads may go on using CUDA.
    """

    def __init__(self, program: Program, images: Tensor):
        (only,) = program.passes
        self._stem, (self._y, *self._rest) = only.stem
        self.output = program.output
        self._graph = torch.cuda.CUDAGraph()
        for _ in range(2):
            program.run(images)
        side = torch.cuda.Stream(images.device)
        capture = torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local")
        # Where a capture fails, its own context leaves `side` the current stream; the one around it does not.
        with torch.cuda.stream(side), capture:
            for call, arguments in only.calls:
                call(*arguments)

    def run(self, images: Tensor) -> Tensor:
        """Logits of 1 to n `images`; valid until the arena is used again."""
        count = images.shape[0]
        self._stem(self._y[:count], images, *self._rest)
        self._graph.replay()
        return self.output[:count]
