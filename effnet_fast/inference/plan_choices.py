"""What a plan for a GPU decides besides the forms of single blocks, with what it decided against.

Two questions: are stem and first block computed together (`stem_form.py`), and which runs of blocks do two
halves of a batch pass as two branches (`overlap.py`)? The answers are an engine's, by the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.branches import branch_predictor
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.overlap import LEAST_GAIN, Overlap, every_block, side_by_side
from effnet_fast.inference.planner import Plan
from effnet_fast.inference.stem_form import StemChoice
from effnet_fast.measure.gpu_rates import GpuRates

__all__ = ["Choice", "branch_choices", "stem_choice"]


@dataclass(frozen=True)
class Choice:
    """One of two ways through some blocks.

    Attributes:
        first, last: of the blocks, by name.
        taken, other: the ways, in words; `other` with the reason where it is no question of time.
        prediction: of all kernels of these blocks on the way taken; None where it is the only one.
        rejected: of the other way; None where there is none.
    """

    first: str
    last: str
    taken: str
    prediction: Prediction | None
    other: str
    rejected: Prediction | None

    @property
    def blocks(self) -> str:
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; seconds."""
        return {
            "first": self.first,
            "last": self.last,
            "taken": self.taken,
            "predicted_seconds": None if self.prediction is None else self.prediction.seconds,
            "bound": None if self.prediction is None else self.prediction.bound,
            "other": self.other,
            "other_seconds": None if self.rejected is None else self.rejected.seconds,
            "other_bound": None if self.rejected is None else self.rejected.bound,
        }


def stem_choice(stem: StemChoice, block: str) -> Choice:
    """What `stem` says of the stem and the first block, which is called `block`."""
    if not stem.predicted:
        return Choice("stem", block, "apart", None, "together (no kernel for these shapes)", None)
    ways = [
        ("apart", stem.predicted[BlockForm.THREE_KERNELS]),
        ("together", stem.predicted[BlockForm.WITH_STEM]),
    ]
    (taken, prediction), (other, rejected) = reversed(ways) if stem.together else ways
    return Choice("stem", block, taken, prediction, other, rejected)


def branch_choices(plan: Plan, overlap: Overlap, rates: GpuRates) -> tuple[Choice, ...]:
    """A choice for every stretch of `overlap`, and for every run of blocks between them, in order.

    Args:
        plan: of the whole batch at a time.
        overlap: as `predicted_overlap` chose it for `plan` and `rates`.
    """
    return tuple(_branch_choices(plan, overlap, rates))


def _branch_choices(plan: Plan, overlap: Overlap, rates: GpuRates) -> Iterator[Choice]:
    predicted, layers = branch_predictor(plan, rates), plan.layers

    def choice(begin: int, end: int, branched: bool) -> Choice:
        names, steps = (layers[begin].block, layers[end - 1].block), layers[begin:end]
        one = reduce(add, (predicted(layer, plan.batch) for layer in steps))
        if plan.batch < 2:
            return Choice(*names, "one branch", one, "two branches (for 2 images and more)", None)
        half = [predicted(layer, -(-plan.batch // 2)) for layer in steps]
        total = reduce(add, half)
        two = Prediction(side_by_side(half), (total + total).parts)
        if branched:
            return Choice(*names, "two branches", two, "one branch", one)
        # What gains enough was left out for one reason alone: see `predicted_overlap`.
        enough = one.seconds - two.seconds >= LEAST_GAIN * one.seconds
        return Choice(*names, "one branch", one, "two branches (memory)" if enough else "two branches", two)

    for whole in every_block(layers).stretches:
        at = whole.begin
        for begin, end in overlap.bounds:
            if at < begin:
                yield choice(at, begin, branched=False)
            yield choice(begin, end, branched=True)
            at = end
        if at < whole.end:
            yield choice(at, whole.end, branched=False)
