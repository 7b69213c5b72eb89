"""What people read: the plan's table and the line about memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from effnet_fast.inference import BlockForm, MemoryReport, fold, network_layers, plan_network
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.report import plan_table
from effnet_fast.models import create_model


@pytest.fixture(scope="module")
def plan():
    with torch.device("meta"):
        network = fold(create_model("tf_efficientnet_b0").eval())
    layers = network_layers(network, (224, 224), forms=BlockForm.EXPANSION_FUSED)
    return plan_network(layers, batch=4, dtype=torch.float32, budget_bytes=4 << 20)


@pytest.fixture(scope="module")
def predictions(plan):
    return predictions_of(plan.layers)


def predictions_of(layers) -> dict[str, Prediction]:
    """A memory time of 1 us for the first step, 2 us for the second and so on, and 0.5 us of launch."""
    return {
        layer.name: Prediction(1e-6 * number + 5e-7, {"launch": 5e-7, "memory": 1e-6 * number})
        for number, layer in enumerate(layers, start=1)
    }


def row(table: str, start: str) -> list[str]:
    return next(line for line in table.splitlines() if line.strip().startswith(start)).split()


def test_without_times_there_are_no_columns_for_them(plan):
    table = plan_table(plan)
    assert table == str(plan)
    assert "predicted" not in table
    assert "measured" not in table
    assert row(table, "stem") == [
        *("stem", "stem_conv", "3x3", "/2", "pad", "0,0,1,1", "silu"),
        *("3x224x224", "32x112x112", "2.1", "MiB", "1"),
    ]


def test_predicted_and_measured_and_their_ratio(plan, predictions):
    measured = {name: 2 * prediction.seconds for name, prediction in predictions.items()}
    table = plan_table(plan, predictions, measured)
    assert row(table, "stem")[-4:] == ["1.5", "memory", "3.0", "0.50"]
    number = len(plan.layers)
    total = number * (number + 1) / 2 + 0.5 * number
    assert row(table, "all")[-4:] == [f"{total:.1f}", "memory", f"{2 * total:.1f}", "0.50"]


def test_each_of_them_alone(plan, predictions):
    assert row(plan_table(plan, predictions), "stem")[-2:] == ["1.5", "memory"]
    assert row(plan_table(plan, measured=dict.fromkeys(predictions, 7e-6)), "stem")[-1] == "7.0"


def test_a_plan_shows_its_own_times(plan, predictions):
    assert str(dataclasses.replace(plan, predictions=predictions)) == plan_table(plan, predictions)


def test_every_step_is_a_line_and_no_line_is_wider_than_a_screen(plan, predictions):
    table = plan_table(plan, predictions, dict.fromkeys(predictions, 0.123456))
    lines = table.splitlines()
    assert max(map(len, lines)) <= 140
    for layer in plan.layers:
        assert any(layer.operator in line for line in lines)
    assert sum("expand_depthwise_pool" in line for line in lines) == 15
    assert sum("squeeze_excite_gate" in line for line in lines) == 15
    assert "…" not in table  # nothing is cut off


def test_a_whole_block_is_one_line():
    with torch.device("meta"):
        network = fold(create_model("tf_efficientnet_b0").eval())
    layers = network_layers(network, (224, 224), forms=BlockForm.WHOLE)
    plan = plan_network(layers, batch=4, dtype=torch.float32, threads=2, budget_bytes=4 << 20)
    table = plan_table(plan, measured={layer.name: 1e-5 for layer in layers})
    assert sum("mbconv" in line for line in table.splitlines()) == 16
    assert row(table, "stages.1.1") == [
        *("stages.1.1", "mbconv", "whole", "144,", "3x3", "silu", "se", "6", "+", "x"),
        *("24x56x56", "24x56x56", "882.0", "KiB", "4", "10.0"),
    ]
    assert table.splitlines()[-1] == "whole n: the whole block in one kernel, n channels inside"
    assert ("scratch" in table) == (plan.scratch_bytes > 0)
    lines = plan_table(
        plan, predictions_of(layers), dict.fromkeys((layer.name for layer in layers), 0.123456)
    )
    assert max(map(len, lines.splitlines())) <= 140


def test_the_line_about_memory():
    report = MemoryReport(arena_bytes=3 << 20, weight_bytes=1 << 20, peak_bytes=2 << 20)
    assert str(report) == "activations 3.0 MiB (live at most 2.0 MiB), weights 1.0 MiB, together 4.0 MiB"
    kernels = dataclasses.replace(report, scratch_bytes=3 << 19)
    assert (kernels.activation_bytes, kernels.total_bytes) == (9 << 19, 11 << 19)
    assert str(kernels) == (
        "activations 3.0 MiB (live at most 2.0 MiB), scratch 1.5 MiB, weights 1.0 MiB, together 5.5 MiB"
    )
    saving = dataclasses.replace(report, saved_bytes=5 << 20)
    assert saving.total_bytes == report.total_bytes == 4 << 20
    assert str(saving) == f"{report}; kept for save() 5.0 MiB"
