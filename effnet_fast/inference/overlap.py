"""Where two halves of a batch should go through the network side by side: a decision on predictions.

A kernel leaves most of a GPU idle: an expansion fused with its depthwise convolution is bound by the special
functions and the tensor cores, the projection after it by memory, and they cannot run at once since one reads
what the other writes. The kernels of the *other* half of the batch can. So a stretch of blocks is captured as
two branches of the graph (`graphs.py`), one for each half, the second a kernel behind the first, so that
unlike kernels meet.

**Its time.** While two kernels share the device, each advances at 1 / s of its own speed, where s is what a
second of each takes side by side (`overlapped_seconds`): 2 where one resource is all that both use, 1 where
none is short. Both halves take the same times alone, so the second stays one first kernel behind to the end,
and with t_1 the time of that kernel

    seconds = 2 t_1 + (the rest of the first half, each piece times the s of the two kernels that meet)

**What it costs** is counted, too: each kernel is launched twice, weights are read twice, a grid of half the
size has a longer tail (as far as the predictions of half a batch say so), and fork and join are waits for
whole grids, where the kernels of one branch begin before the last one's end: a launch each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effnet_fast.inference.cost import Prediction, overlapped_seconds
from effnet_fast.inference.layers import IMAGE, Layer, block_operators

__all__ = [
    "LEAST_GAIN",
    "Overlap",
    "Stretch",
    "check_overlap",
    "choose_overlap",
    "every_block",
    "side_by_side",
]

#: Of a stretch's time: less is not worth a second capture and a warm-up's measurement. A kernel's blocks are
#: handed out mostly in the order of the launches, which the model knows nothing of; it errs on that scale.
LEAST_GAIN = 0.05


@dataclass(frozen=True)
class Stretch:
    """Steps `begin` to `end` - 1 of a plan, blocks `first` to `last`, as two branches.

    `one` and `two`: seconds of a batch predicted for one branch and for two; None where nobody asked.
    """

    begin: int
    end: int
    first: str
    last: str
    one: float | None = None
    two: float | None = None


@dataclass(frozen=True)
class Overlap:
    """The stretches of a plan that may run as two branches.

    Attributes:
        stretches: ascending, apart from each other.
        graphs: images of the captured graphs that do run so; None as long as nothing is measured.
        failure: why such a graph could not be captured, if it could not.
    """

    stretches: tuple[Stretch, ...]
    graphs: tuple[int, ...] | None = None
    failure: str | None = None

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """[begin, end) of the steps of every stretch."""
        return tuple((stretch.begin, stretch.end) for stretch in self.stretches)


def check_overlap(overlap: bool | str, graphs: bool, batch: int) -> None:
    """ValueError or RuntimeError unless an engine with or without `graphs` can be asked for `overlap`."""
    if not (isinstance(overlap, bool) or overlap == "auto"):
        raise ValueError(f'overlap must be "auto", True or False, got {overlap!r}')
    if overlap is True and not graphs:
        raise RuntimeError(
            "overlap=True needs CUDA graphs, whose branches it makes, and this engine captures none: use "
            '"auto", or a CUDA device with the cuda or triton backend and without cuda_graph=False'
        )
    if overlap is True and batch < 2:
        raise ValueError(f"overlap=True needs a batch_size of at least 2, got {batch}")


def every_block(layers: Sequence[Layer]) -> Overlap:
    """All blocks between stem and head as one stretch, whatever may be predicted."""
    runs = _blocks(layers)
    if not runs:
        return Overlap(())
    begin, end = runs[0][0], runs[-1][1]
    return Overlap((Stretch(begin, end, layers[begin].block, layers[end - 1].block),))


def choose_overlap(
    layers: Sequence[Layer],
    batch: int,
    predicted: Callable[[Layer, int], Prediction],
    *,
    least_gain: float = LEAST_GAIN,
    skip: int = 0,
) -> Overlap:
    """The stretches of `layers` that are predicted to gain most, out of all that there are.

    Args:
        layers: the steps of a plan.
        batch: images; below 2 there is nothing to divide.
        predicted: layer, images -> prediction for a GPU. Of half the batch it should assume the cache that
            the whole batch would find, which both halves share.
        least_gain: fraction of its time that a stretch must gain.
        skip: blocks behind the stem that no stretch may have.

    Both halves are taken for the larger one. Deterministic; takes steps squared.
    """
    runs = _blocks(layers)[skip:]
    if batch < 2 or not runs:
        return Overlap(())
    whole = [predicted(layer, batch) for layer in layers]
    half = [predicted(layer, -(-batch // 2)) for layer in layers]
    # best[k]: what blocks before the k-th gain at most, and by which stretches.
    best: list[tuple[float, tuple[Stretch, ...]]] = [(0.0, ())]
    candidates: dict[int, list[tuple[int, Stretch]]] = {}
    for first, (begin, _) in enumerate(runs):
        two = _growing(half[begin : runs[-1][1]])
        for last in range(first, len(runs)):
            end = runs[last][1]
            stretch = Stretch(
                begin,
                end,
                layers[begin].block,
                layers[end - 1].block,
                one=sum(step.seconds for step in whole[begin:end]),
                two=two[end - begin - 1],
            )
            if stretch.one - stretch.two >= least_gain * stretch.one:
                candidates.setdefault(last, []).append((first, stretch))
    for last in range(len(runs)):
        choices = [
            (best[first][0] + stretch.one - stretch.two, (*best[first][1], stretch))
            for first, stretch in candidates.get(last, ())
        ]
        best.append(max((best[-1], *choices), key=lambda choice: choice[0]))
    return Overlap(best[-1][1])


def side_by_side(half: Sequence[Prediction]) -> float:
    """Seconds in which both halves of a batch pass the kernels `half`, at least one; with fork and join."""
    return _growing(half)[-1]


def _growing(half: Sequence[Prediction]) -> list[float]:
    """`side_by_side` of the first kernel, the first two and so on."""
    launches = [step.parts.get("launch", 0.0) for step in half]
    # What each kernel takes of each resource in a second of its own.
    rates = [
        Prediction(1.0, {name: part / step.seconds for name, part in step.parts.items()}) for step in half
    ]
    lead = half[0].seconds
    together = 0.0
    result = [2 * launches[0] + 2 * lead]
    behind, left = 0, lead  # where the second half is, and what is left of that kernel
    for ahead in range(1, len(half)):
        remaining = half[ahead].seconds
        while remaining > 0:
            piece = min(remaining, left)
            together += piece * overlapped_seconds(rates[ahead], rates[behind])
            remaining, left = remaining - piece, left - piece
            if left <= 0:
                behind += 1
                left = half[behind].seconds
        result.append(2 * max(launches[: ahead + 1]) + 2 * lead + together)
    return result


def _blocks(layers: Sequence[Layer]) -> list[tuple[int, int]]:
    """[begin, end) of the steps of every block that two branches can have.

    None up to the last that reads the caller's images, outside of the graph; nor head and classifier, which
    hold a third of B0's weights and would read them twice.
    """
    runs, begin = [], 0
    for block in block_operators(layers):
        end = begin + len(block)
        if any(layer.operator == "head_pool" for layer in block):
            break
        if any(layer.x.name == IMAGE for layer in block):
            runs.clear()  # what comes before is outside, too
        else:
            runs.append((begin, end))
        begin = end
    return runs
