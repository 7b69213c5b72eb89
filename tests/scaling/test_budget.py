"""The largest network within a budget, against brute force, real engines, and bad budgets."""

from __future__ import annotations

import bisect
import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_fast import InferenceEngine
from effnet_fast.models import EfficientNet, count_macs, count_parameters
from effnet_fast.models.config import MBConvConfig
from effnet_fast.scaling import (
    engine_bytes,
    engine_milliseconds,
    engines,
    phi_for_budget,
    scaled_model_config,
)
from effnet_fast.scaling.bisection import last_within

ROWS = (
    MBConvConfig(expand=1, kernel=3, stride=1, channels=16, layers=1),
    MBConvConfig(expand=4, kernel=3, stride=2, channels=24, layers=2),
)
TINY = {"base_stages": ROWS, "base_resolution": 32, "num_classes": 10}


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.integers(-40, 10),
    st.integers(1, 20),
    st.integers(0, 120),
)
def test_the_last_step_within_a_budget_is_found(rises, low, step, budget):
    stairs = [sum(rises[: index + 1]) for index in range(len(rises))]
    high = low + len(stairs) - 1
    asked = []

    def cost(index):
        assert low <= index <= high
        asked.append(index)
        return stairs[index - low]

    within, above = last_within(cost, budget, low=low, high=high, step=step)
    fitting = bisect.bisect_right(stairs, budget)  # how many are within
    assert within == (low + fitting - 1 if fitting else None)
    assert above == (low + fitting if fitting < len(stairs) else None)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("budget", "count", "value"),
    [("macs", count_macs, 1e9), ("macs", count_macs, 9e7), ("params", count_parameters, 20e6)],
)
@pytest.mark.parametrize("base", ["efficientnet", "mobilenetv2"])
def test_no_larger_phi_is_within_the_budget(base, budget, count, value):
    found = phi_for_budget(**{budget: value}, base=base)
    assert found.phi == round(found.phi, 3)
    assert found.config == scaled_model_config(found.phi, base=base)
    assert found.achieved == count(found.config) <= value
    for further in (0.001, 0.01, 0.1, 1):
        assert count(scaled_model_config(found.phi + further, base=base)) > value
    # The answer is near the top of the staircase: a step is no more than a layer, a width or 4 pixels.
    assert found.achieved > 0.75 * value
    assert [point.cost for point in found.points] == [count(point.config) for point in found.points]


def test_a_budget_that_is_met_exactly_is_within():
    exact = count_macs(scaled_model_config(2))
    found = phi_for_budget(macs=exact)
    assert found.achieved == exact
    assert found.phi >= 2
    assert phi_for_budget(macs=exact - 1).phi < 2


def test_coefficients_of_ones_own_are_used():
    found = phi_for_budget(params=10e6, alpha=1.0, beta=1.3, gamma=1.0, base_resolution=64)
    assert found.config.resolution == 64
    assert [row.layers for row in found.config.stages] == [1, 2, 2, 3, 3, 4, 1]
    assert found.config.stages[-1].channels > 320


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 5])
def test_planned_memory_is_that_of_an_engine(batch, dtype):
    config = scaled_model_config(1.5, **TINY)
    engine = InferenceEngine(EfficientNet(config).eval(), batch_size=batch, dtype=dtype, device="cpu")
    planned = engine_bytes(config, batch_size=batch, dtype=dtype, device="cpu")
    unpadded = planned - engine.memory.activation_bytes
    stored = 2 if dtype == torch.bfloat16 else 4
    # Weights at least in the storage dtype; packing pads, most in the smallest networks.
    assert stored * count_parameters(config) * 0.9 < unpadded <= engine.memory.weight_bytes


def test_memory_budget():
    found = phi_for_budget(memory_mb=1.5, batch_size=4, dtype=torch.float32, device="cpu", **TINY)
    options = {"batch_size": 4, "dtype": torch.float32, "device": "cpu"}
    assert found.unit == "MB"
    assert found.achieved == engine_bytes(found.config, **options) / 1e6 <= 1.5
    assert engine_bytes(scaled_model_config(found.phi + 0.001, **TINY), **options) / 1e6 > 1.5


def test_latency_is_bisected_over_what_is_measured():
    measured = []

    def measure(config):
        """Milliseconds of a machine with 2 ms for phi 0, and noise of 3%."""
        measured.append(config)
        return count_macs(config) / 193e6 * (1 + 0.03 * math.sin(17 * len(measured)))

    seen = []
    found = phi_for_budget(latency_ms=10, measure=measure, on_point=seen.append)
    assert found.unit == "ms"
    assert found.achieved <= 10
    assert [point.config for point in found.points] == measured
    assert list(found.points) == seen
    exact = phi_for_budget(macs=10 * 193e6).phi
    assert abs(found.phi - exact) < 0.25
    assert len(measured) < 16
    over = [point for point in found.points if point.cost > 10]
    assert found.phi < min(point.phi for point in over) <= found.phi + 0.1
    coarse = phi_for_budget(latency_ms=10, measure=measure, tolerance=0.5)
    assert len(coarse.points) < len(found.points)


def test_an_engine_is_timed():
    small, large = (scaled_model_config(phi, **TINY) for phi in (0, 8))
    state = torch.random.get_rng_state()
    times = [engine_milliseconds(c, batch_size=2, device="cpu", seconds=0.02) for c in (small, large)]
    assert 0 < times[0] < times[1]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_milliseconds_are_milliseconds(monkeypatch):
    class Sleeper:
        dtype = torch.float32

        def __init__(self, model, **settings):
            assert not model.training
            assert settings["batch_size"] == 3

        def warmup(self):
            pass

        def __call__(self, images):
            assert images.shape == (3, 3, 32, 32)
            time.sleep(0.004)

    monkeypatch.setattr(engines, "InferenceEngine", Sleeper)
    measured = engine_milliseconds(scaled_model_config(0, **TINY), batch_size=3, device="cpu", seconds=0.02)
    assert 4 <= measured < 400  # a busy machine sleeps longer


def test_latency_on_this_machine():
    steep = {"alpha": 4.0, "gamma": 4.0, **TINY}
    budget = 8 * engine_milliseconds(scaled_model_config(0, **steep), device="cpu", seconds=0.05)
    found = phi_for_budget(latency_ms=budget, tolerance=1.0, phi_range=(0, 2), device="cpu", **steep)
    assert 0 <= found.phi < 2
    assert found.achieved <= budget < found.points[-1].cost


def test_both_ends_of_a_range_are_searched():
    seen = []
    with pytest.raises(ValueError, match="largest network that is tried, phi 1.001 at"):
        phi_for_budget(macs=1e12, phi_range=(0.5, 1.001), on_point=seen.append, resolution_divisor=1)
    assert seen[-1].phi == 1.001  # 1.001 * 1000 is less than 1001
    with pytest.raises(ValueError, match="device must be one that computes, such as cpu or cuda, got meta"):
        engine_milliseconds(scaled_model_config(0, **TINY), device="meta")


def five(config) -> float:
    return 5.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"macs": 1e5}, "macs=100,000 is impossible: the smallest .* phi -13.923 at 32 pixels, has 839,424"),
        ({"macs": 1e17}, "is impossible: the largest network .* phi 22.81 at"),
        ({"params": 10}, "params=10 is impossible: the smallest network .* parameters"),
        ({"memory_mb": 0.5}, r"memory_mb=0.5 is impossible: the smallest .* phi -8 .* has 4\.\d+ MB; raise"),
        ({"latency_ms": 1.0, "measure": five}, "latency_ms=1 is impossible: the smallest .* has 5 ms"),
        ({"latency_ms": 9.0, "measure": five}, "latency_ms=9 is impossible: the largest .* has 5 ms"),
        ({"macs": 1e9, "max_points": 1}, "max_points=1 were too few .* nearest so far: phi 0 at 224"),
        ({"params": 5e6, "alpha": 1.0, "beta": 1.0, "gamma": 1.0}, "all 1: every phi is the same network"),
        ({}, "exactly one budget must be given, of macs, params, memory_mb, latency_ms, got none"),
        ({"macs": 1e9, "params": 1e6}, "got macs, params"),
        ({"macs": 0}, "macs must be positive"),
        ({"macs": -1.0}, "macs must be positive"),
        ({"params": math.nan}, "params must be a finite number"),
        ({"params": math.inf}, "params must be a finite number"),
        ({"macs": 1e9, "tolerance": 0.0}, "tolerance must be"),
        ({"macs": 1e9, "max_points": 0}, "max_points must be at least 1"),
        ({"macs": 1e9, "batch_size": 0}, "batch_size must be at least 1"),
        ({"macs": 1e9, "phi_range": (3, 1)}, "phi_range must be two ascending numbers"),
        ({"macs": 1e9, "phi_range": (1.0101, 1.0109)}, "phi_range must hold a phi of three decimals"),
        ({"macs": 1e30}, r"macs=1e\+30 is impossible: the largest .* multiply-adds; lower the budget"),
        ({"latency_ms": 5, "measure": lambda config: math.nan}, "cost of efficientnet_phi0 must be a finite"),
        ({"latency_ms": 5, "measure": lambda config: 0.0}, "cost of efficientnet_phi0 must be positive"),
        ({"macs": 1e9, "phi_range": (-99, 1)}, "phi_range must be two ascending numbers"),
        ({"macs": 1e9, "alpha": -2.0}, "alpha must be"),
        ({"macs": 1e9, "base": "vgg"}, "base must be one of efficientnet, "),
        ({"macs": 1e9, "base_resolution": 16}, "base_resolution must be from the network's stride of 32"),
    ],
)  # fmt: skip
def test_impossible_budgets_and_bad_values_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        phi_for_budget(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"macs": "1G"}, "macs must be a number, got str"),
        ({"macs": 1e9, "phi_range": 3}, "phi_range must be a pair"),
        ({"macs": 1e9, "phi": 2}, "phi is what is searched: it cannot be given"),
        ({"macs": 1e9, "measure": 3}, "measure must be callable, got int"),
        ({"macs": 1e9, "on_point": 3}, "on_point must be callable, got int"),
        ({"latency_ms": 5, "measure": lambda config: "fast"}, "cost of efficientnet_phi0 must be a number"),
        ({"macs": 1e9, "max_points": 2.5}, "max_points must be an integer"),
        ({"macs": 1e9, "aplha": 1.2}, "aplha is no argument of compound scaling"),
    ],
)
def test_wrong_types_are_named(options, words):
    with pytest.raises(TypeError, match=words):
        phi_for_budget(**options)
