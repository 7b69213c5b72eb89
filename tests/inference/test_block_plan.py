"""A network's plan for a GPU: every block once, in the form that engines would choose."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.inference import BlockForm
from effnet_fast.inference import block_plan as module
from effnet_fast.inference.block_plan import block_plan
from effnet_fast.inference.block_plan_table import block_plan_table
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.gpu_cost import choose_block_forms
from effnet_fast.inference.stem_form import StemChoice
from effnet_fast.measure.chips import CHIPS
from effnet_fast.measure.gpu_rates import nominal_rates
from tests.inference.gpu_networks import folded, image_size

CALL = {
    "images": 64,
    "dtype": torch.float16,
    "image_dtype": torch.uint8,
    "rates": nominal_rates(CHIPS["h200"]),
}


def planned(name: str):
    return block_plan(folded(name), image_size(name), **CALL)


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "efficientnet_b4", "tf_efficientnetv2_s", "mobilenetv2_100"]
)
def test_every_block_is_there_once_in_the_form_chosen(name, monkeypatch):
    monkeypatch.setattr(module, "choose_stem_form", lambda *given, **call: StemChoice(False, {}))
    plan = planned(name)
    names = [block.name for block in folded(name).blocks]
    assert [block.block for block in plan.blocks] == ["stem", *names, "head", "classifier"]
    choices = choose_block_forms(folded(name), image_size(name), **CALL)
    assert {block.block: block.form for block in plan.blocks if block.form} == {
        block: choice.form for block, choice in choices.items()
    }
    for block in plan.blocks:
        if block.block in choices:
            choice = choices[block.block]
            assert block.prediction.seconds == pytest.approx(choice.predicted[choice.form].seconds)
            assert (block.other is None) == (len(choice.predicted) == 1)
    assert plan.prediction.seconds == pytest.approx(sum(block.prediction.seconds for block in plan.blocks))
    assert plan.images_per_second == pytest.approx(64 / plan.prediction.seconds)


def test_the_stem_is_part_of_the_first_block_where_that_is_faster(monkeypatch):
    both = {
        BlockForm.THREE_KERNELS: Prediction(1e-3, {"memory": 1e-3}),
        BlockForm.WITH_STEM: Prediction(1e-4, {"issue": 1e-4}),
    }
    together = StemChoice(True, both)
    monkeypatch.setattr(module, "choose_stem_form", lambda *given, **call: together)
    first, second = planned("efficientnet_b0").blocks[:2]
    assert (first.block, first.form, first.reason, first.other) == (
        "stages.0.0", BlockForm.WITH_STEM, "predicted", 1e-3,
    )  # fmt: skip
    assert second.block == "stages.1.0"
    assert (planned("efficientnet_b0").stem.taken, planned("efficientnet_b0").stem.other) == (
        "together",
        "apart",
    )
    # Its image is read twice and its output written once: the maps between are not.
    assert first.bytes < 64 * (2 * 3 * 224 * 224 + 2 * 16 * 112 * 112 + 4 * 4 * 32 * 49) * 1.02


def test_a_table_fits_a_wide_terminal_and_names_its_rates():
    text = block_plan_table(planned("efficientnet_b0"), "efficientnet_b0, 224 x 224")
    assert max(map(len, text.splitlines())) <= 150
    longest = block_plan_table(planned("efficientnet_b7"), "efficientnet_b7, 600 x 600")
    assert max(map(len, longest.splitlines())) <= 150
    assert text.splitlines()[0] == "efficientnet_b0, 224 x 224, batch 64, float16 on NVIDIA H200"
    assert "Rates are nominal: rates of data sheets, nothing measured." in text
