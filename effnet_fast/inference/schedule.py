"""How many images a captured graph runs: buckets, and when a smaller number is padded to one.

A CUDA graph is captured for a fixed number of images. Capturing one for every number would take minutes and
megabytes each, so there is one a bucket: the powers of two below the batch size, and the batch size. A rest
of n images either runs as the next larger bucket, whose remaining places hold what was there before and whose
results are thrown away, or kernel by kernel with exactly n images. Padding costs compute, launching costs the
host; which is less depends on the network, the card and n, so `calibrate` measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Schedule", "buckets", "calibrate"]


def buckets(batch: int) -> tuple[int, ...]:
    """Powers of two below `batch`, and `batch`: (1, 2, 4, 6) for 6."""
    sizes = []
    size = 1
    while size < batch:
        sizes.append(size)
        size *= 2
    return (*sizes, batch)


@dataclass(frozen=True)
class Schedule:
    """{bucket: the fewest images that are padded to it}, buckets ascending.

    A full bucket always takes its graph.
    """

    fewest: dict[int, int]

    @classmethod
    def always_padded(cls, batch: int) -> Schedule:
        """Before anything is measured: a rest is at least half of its bucket, and a launch is never free."""
        sizes = buckets(batch)
        return cls({size: below + 1 for below, size in zip((0, *sizes), sizes, strict=False)})

    def choose(self, images: int) -> int | None:
        """The bucket that runs `images` images (at least 1), or None: kernel by kernel."""
        for bucket, fewest in self.fewest.items():
            if images <= bucket:
                return bucket if images >= fewest else None
        return None


def calibrate(
    batch: int, graph_seconds: Callable[[int], float], eager_seconds: Callable[[int], float]
) -> Schedule:
    """The schedule under which every number of images takes its faster way.

    Args:
        batch: the engine's batch size.
        graph_seconds: bucket -> seconds of its graph.
        eager_seconds: number of images -> seconds kernel by kernel, which grows with the number.

    Within a bucket the eager time grows and the graph's is constant, so there is one number from which the
    graph is faster; bisection finds it with log2(bucket / 2) measurements.
    """
    fewest = {}
    below = 0
    for bucket in buckets(batch):
        padded = graph_seconds(bucket)
        # Eager is faster up to `low` images, the graph is from `high` on. A full bucket is never launched
        # kernel by kernel: the graph runs the same kernels.
        low, high = below, bucket
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if eager_seconds(middle) < padded else (low, middle)
        fewest[bucket] = high
        below = bucket
    return Schedule(fewest)
