"""What a plan on paper says of the stem and of two branches: both ways, and what an engine would take."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from effnet_fast.backends import Backend
from effnet_fast.inference import BlockForm, branches, network_layers, plan_network
from effnet_fast.inference import draft as draft_module
from effnet_fast.inference.block_plan import block_plan
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.gpu_cost import predict_on_gpu
from effnet_fast.inference.overlap import Overlap
from effnet_fast.inference.plan_choices import branch_choices, stem_choice
from effnet_fast.inference.stem_form import StemChoice
from effnet_fast.measure.chips import CHIPS
from effnet_fast.measure.gpu_rates import nominal_rates
from tests.inference.gpu_networks import folded, image_size

HALF, PIXELS = torch.float16, torch.uint8
APART = Prediction(3e-6, {"launch": 1e-6, "memory": 2e-6, "issue": 0.5e-6})
TOGETHER = Prediction(2e-6, {"launch": 0.5e-6, "memory": 1e-6, "issue": 1.5e-6})
BOTH = {BlockForm.THREE_KERNELS: APART, BlockForm.WITH_STEM: TOGETHER}


def paper(name: str, chip: str, images: int, dtype: torch.dtype = HALF):
    rates = nominal_rates(CHIPS[chip])
    call = {"images": images, "dtype": dtype, "image_dtype": PIXELS, "rates": rates}
    return block_plan(folded(name), image_size(name), **call)


def test_the_way_that_is_taken_comes_first():
    apart, together = (stem_choice(StemChoice(taken, BOTH), "stages.0.0") for taken in (False, True))
    assert (apart.blocks, apart.taken, apart.other) == ("stem to stages.0.0", "apart", "together")
    assert (apart.prediction, apart.rejected) == (APART, TOGETHER)
    assert (together.taken, together.other) == ("together", "apart")
    assert (together.prediction, together.rejected) == (TOGETHER, APART)
    assert together.to_json() == {
        "first": "stem", "last": "stages.0.0",
        "taken": "together", "predicted_seconds": 2e-6, "bound": "issue",
        "other": "apart", "other_seconds": 3e-6, "other_bound": "memory",
    }  # fmt: skip


def test_without_a_kernel_there_is_no_other_way():
    choice = stem_choice(StemChoice(False, {}), "stages.0.0")
    assert (choice.taken, choice.other) == ("apart", "together (no kernel for these shapes)")
    assert choice.prediction is choice.rejected is None
    assert choice.to_json()["bound"] is None
    for plan in (paper("efficientnet_b0", "h200", 8, torch.float32), paper("efficientnetv2_s", "h200", 8)):
        assert plan.stem == choice


@pytest.mark.parametrize(
    ("name", "chip", "images"),
    [
        ("efficientnet_b4", "h200", 64),
        ("efficientnet_b7", "l4", 64),
        ("mobilenetv2_100", "l4", 256),
        ("efficientnet_b0", "h200", 64),
        ("efficientnet_b0", "h200", 1),
        ("efficientnetv2_s", "l4", 64),
    ],
)
def test_an_engine_on_that_gpu_decides_the_same(monkeypatch, name, chip, images):
    plan, rates = paper(name, chip, images), nominal_rates(CHIPS[chip])
    made = SimpleNamespace(
        resolve=lambda *given, **options: Backend.CUDA,
        has_kernel=lambda operator, backend: operator in ("expand_depthwise_into", "stem_block_into"),
    )
    monkeypatch.setattr(draft_module, "backend_choice", made)
    monkeypatch.setattr(draft_module, "measured_rates", lambda *given: rates)
    monkeypatch.setattr(draft_module, "tuned_plan", lambda device: None)
    monkeypatch.setattr(branches, "measured_rates", lambda *given: rates)
    device = torch.device("cuda", 0)
    drafted = draft_module.draft(
        folded(name), image_size(name), batch=images, dtype=HALF, image_dtype=PIXELS, device=device
    )
    assert {block.block: block.form for block in plan.blocks if block.form} == drafted.forms
    assert (plan.stem.taken == "together") == (BlockForm.WITH_STEM in drafted.forms.values())
    engine, _ = branches.resolve_branches(drafted.plan(images), "auto", device, lambda more: None)
    assert plan.overlap == (engine.overlap or Overlap(()))
    stretches = [choice for choice in plan.branches if choice.taken == "two branches"]
    assert [
        (choice.first, choice.last, choice.rejected.seconds, choice.prediction.seconds)
        for choice in stretches
    ] == [
        (stretch.first, stretch.last, pytest.approx(stretch.one), pytest.approx(stretch.two))
        for stretch in plan.overlap.stretches
    ]
    inside = {layer.block for begin, end in plan.overlap.bounds for layer in engine.layers[begin:end]}
    assert {block.block for block in plan.blocks if block.branches == 2} == inside


def test_these_networks_show_every_choice():
    """Else the comparison with an engine would compare nothing."""
    taken = {
        choice.taken
        for name, chip, images in (("mobilenetv2_100", "l4", 256), ("efficientnet_b0", "h200", 64))
        for plan in [paper(name, chip, images)]
        for choice in (plan.stem, *plan.branches)
    }
    assert taken == {"apart", "together", "one branch", "two branches"}


@pytest.mark.parametrize(
    ("name", "chip", "images"), [("efficientnet_b4", "h200", 64), ("mobilenetv2_100", "l4", 256)]
)
def test_every_block_behind_the_stem_is_in_one_choice(name, chip, images):
    plan, rates = paper(name, chip, images), nominal_rates(CHIPS[chip])
    first = plan.blocks[0].form is BlockForm.WITH_STEM or plan.blocks[0].block == "stem"
    between = [block for block in plan.blocks[first:] if block.block not in ("head", "classifier")]
    names = [block.block for block in between]
    ends = [(names.index(choice.first), names.index(choice.last)) for choice in plan.branches]
    assert (ends[0][0], ends[-1][1]) == (0, len(names) - 1)
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ends))
    seconds = {block.block: block.prediction for block in between}
    forms = {block.block: block.form for block in plan.blocks if block.form}
    layers = network_layers(folded(name), image_size(name), forms=forms)
    for choice, (begin, end) in zip(plan.branches, ends, strict=True):
        one, two = choice.prediction, choice.rejected
        if choice.taken == "two branches":
            one, two = two, one
        assert one.seconds == pytest.approx(sum(seconds[block].seconds for block in names[begin : end + 1]))
        # Fork and join, and all that one half takes alone, at least; every launch and byte of both halves.
        inside = [layer for layer in layers if layer.block in names[begin : end + 1]]
        half = [predict_on_gpu(layer, images // 2, HALF, PIXELS, rates) for layer in inside]
        assert two.parts["tensor"] == pytest.approx(2 * sum(step.parts["tensor"] for step in half))
        assert two.parts["launch"] == pytest.approx(2 * sum(step.parts["launch"] for step in half))
        assert two.seconds > sum(step.seconds for step in half)
    gains = [
        choice.rejected.seconds - choice.prediction.seconds
        for choice in plan.branches
        if choice.taken == "two branches"
    ]
    assert plan.prediction.seconds - plan.branched_seconds == pytest.approx(sum(gains))


def test_one_image_has_one_branch_and_nothing_is_predicted_of_two():
    (choice,) = paper("efficientnet_b0", "h200", 1).branches
    assert (choice.first, choice.last, choice.taken) == ("stages.0.0", "stages.6.0", "one branch")
    assert choice.other == "two branches (for 2 images and more)"
    assert choice.rejected is None


def test_blocks_that_would_take_too_much_memory_say_so(monkeypatch):
    def predicted(layer, images, *shapes, working_set) -> Prediction:
        # Unlike kernels everywhere, so that all blocks are worth it.
        bound = "memory" if layer.operator == "pointwise_conv" else "special"
        return Prediction(images, {"launch": 0.0, "memory": 0.0, "special": 0.0, bound: images})

    monkeypatch.setattr(branches, "predict_on_gpu", predicted)
    layers = network_layers(folded("efficientnet_b4"), (380, 380))
    plan = plan_network(layers, batch=8, dtype=HALF)
    early, late = branch_choices(plan, branches.predicted_overlap(plan, None), None)
    assert (early.blocks, early.taken, early.other) == ("stages.0.0", "one branch", "two branches (memory)")
    assert early.rejected.seconds < 0.95 * early.prediction.seconds
    assert (late.first, late.taken, late.other) == ("stages.0.1", "two branches", "one branch")
