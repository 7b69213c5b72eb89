"""The floor of a whole network: its arithmetic or its compulsory bytes, at measured rates."""

from __future__ import annotations

import pytest
import torch

from benchmarks import network_floor
from benchmarks.cases import Case, describe_model
from benchmarks.limits import Limits
from benchmarks.network_floor import add_floors, floor_columns, measure_all
from benchmarks.results import Results
from benchmarks.rows import new_row
from benchmarks.tables import models_table
from effnet_fast.measure import Peaks
from effnet_fast.models import count_parameters, model_config

MODEL = "efficientnet_b0"
FAST = 1e30


def row(batch: int = 2, dtype: str = "float32", peer: str = "engine", median: float = 50.0) -> dict:
    side, gmacs = describe_model(MODEL)
    made = new_row(Case(MODEL, side, batch, dtype, gmacs), peer)
    return {**made, "status": "ok", "median_ms": median, "images_per_second": 40.0, "spread": 0.0}


def test_with_endless_bandwidth_it_is_the_multiply_adds():
    gmacs = describe_model(MODEL)[1]
    peaks = Peaks(fma_macs=1e11, dot_macs=1e11, silu=FAST)
    found = floor_columns(row(), Limits(FAST, peaks))
    assert found["floor_ms"] == pytest.approx(1e3 * 2 * 1e9 * gmacs / 1e11, rel=1e-3)
    assert found["floor_bound"] == "arithmetic"
    assert found["of_floor"] == pytest.approx(found["floor_ms"] / 50.0, abs=1e-4)


def test_with_endless_arithmetic_it_is_images_weights_and_logits_once():
    config = model_config(MODEL)
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        found = floor_columns(row(3, dtype), Limits(1e9, Peaks(FAST, FAST, FAST)))
        # Folding leaves a bias where each of B0's 49 batch norms had four vectors.
        weights = count_parameters(config) - sum(norm_channels())
        values = weights + 3 * (3 * config.resolution**2 + config.num_classes)
        assert found["floor_ms"] == pytest.approx(1e3 * values * size / 1e9, rel=1e-6)
        assert found["floor_bound"] == "memory"


def norm_channels() -> list[int]:
    from effnet_fast.models import create_model

    with torch.device("meta"):
        model = create_model(MODEL)
    return [module.num_features for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_timed_rows_get_it_once_and_the_table_shows_the_engines():
    limits = {"float32": Limits(FAST, Peaks(1e11, 1e11, FAST))}
    rows = [row(), row(peer="eager-nhwc", median=100.0), {**row(dtype="bfloat16"), "status": "FAIL"}]
    add_floors(rows, limits)
    assert rows[0]["of_floor"] == pytest.approx(2 * rows[1]["of_floor"], rel=1e-2)
    assert "of_floor" not in rows[2]
    before = dict(rows[0])
    add_floors(rows, {"float32": Limits(FAST, Peaks(1e9, 1e9, FAST))})
    assert rows[0] == before  # measured in the run that measured it
    table = models_table(Results("models", {"cpu": "x", "threads": 1}, {}, "", rows))
    shown = list(table.columns[-1].cells)
    assert shown[0] == f"{before['of_floor']:.0%} a"


def test_the_limits_are_measured_with_the_threads_of_the_run(monkeypatch):
    seen = []
    monkeypatch.setattr(network_floor, "copy_bandwidth", lambda device: 7.0)
    monkeypatch.setattr(
        network_floor,
        "measure_limits",
        lambda device, dtype, copy: (seen.append((device, torch.get_num_threads())), Limits(copy, None))[1],
    )
    found = measure_all("cpu", ["float32", "bfloat16", "float32"], 2)
    assert {name: limits.copy_bytes_per_second for name, limits in found.items()} == {
        "float32": 7.0,
        "bfloat16": 7.0,
    }
    assert seen == [("cpu", 2), ("cpu", 2)]
    assert torch.get_num_threads() == 1
    # Without the native library that measures peaks the bytes are what is left.
    assert floor_columns(row(), found["float32"])["floor_bound"] == "memory"
