"""The formula of compound scaling, the published table, and how they differ."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from effnet_fast.models import count_macs
from effnet_fast.scaling import (
    compound,
    deviation_table,
    deviations,
    official,
    phi_limits,
    scaled_model_config,
)

# width, depth, resolution, dropout: `efficientnet_params` of tensorflow/tpu.
OFFICIAL = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "b8": (2.2, 3.6, 672, 0.5),
    "l2": (4.3, 5.3, 800, 0.5),
}
# 1.2^k, 1.1^k, 224 * 1.15^k; phi of depth, width, resolution; cost by the formula and as used.
DEVIATIONS = {
    "b0": (1.000, 1.000, 224.0, 0.00, 0.00, 0.00, 1.00, 1.00),
    "b1": (1.200, 1.100, 257.6, 0.52, 0.00, 0.49, 1.92, 1.26),
    "b2": (1.440, 1.210, 296.2, 1.00, 1.00, 1.07, 3.69, 1.96),
    "b3": (1.728, 1.331, 340.7, 1.85, 1.91, 2.09, 7.08, 3.62),
    "b4": (2.074, 1.464, 391.8, 3.22, 3.53, 3.78, 13.60, 10.15),
    "b5": (2.488, 1.611, 450.5, 4.32, 4.93, 5.09, 26.11, 23.34),
    "b6": (2.986, 1.772, 518.1, 5.24, 6.17, 6.14, 50.14, 46.80),
    "b7": (3.583, 1.949, 595.8, 6.21, 7.27, 7.05, 96.28, 88.97),
    "b8": (4.300, 2.144, 685.2, 7.03, 8.27, 7.86, 184.88, 156.82),
}


@pytest.mark.parametrize("variant", OFFICIAL)
def test_the_official_table_is_the_published_one(variant):
    for spelling in (variant, variant.upper(), f"efficientnet_{variant}", f"tf_efficientnet_{variant}"):
        used = official(spelling)
        assert (used.width, used.depth, used.resolution, used.dropout) == OFFICIAL[variant]


@pytest.mark.parametrize(("variant", "error"), [("b9", ValueError), ("", ValueError), (0, TypeError)])
def test_an_unknown_variant_is_named(variant, error):
    with pytest.raises(error, match="variant must be"):
        official(variant)


def test_deviations_are_the_known_ones():
    rows = {row.variant: row for row in deviations()}
    assert list(rows) == list(OFFICIAL)
    for variant, (depth, width, resolution, *phis, formula_cost, cost) in DEVIATIONS.items():
        row = rows[variant]
        assert row.index == int(variant[1])
        assert round(row.formula.depth, 3) == depth
        assert round(row.formula.width, 3) == width
        assert round(row.formula.exact_resolution, 1) == resolution
        assert [round(phi, 2) for phi in (row.phi_depth, row.phi_width, row.phi_resolution)] == phis
        assert (round(row.formula.cost, 2), round(row.cost, 2)) == (formula_cost, cost)
    l2 = rows["l2"]
    assert l2.index is None
    assert l2.formula is None
    phis = [round(phi, 2) for phi in (l2.phi_depth, l2.phi_width, l2.phi_resolution)]
    assert phis == [9.15, 15.30, 9.11]
    assert round(l2.cost) == 1250


def test_the_phi_of_the_cost_is_the_fit_that_users_found():
    phis = [round(2 * row.phi_cost) / 2 for row in deviations()][:8]
    assert phis == [0, 0.5, 1, 2, 3.5, 5, 6, 7]


def test_deviations_are_shown():
    console = Console(file=io.StringIO(), width=140)
    console.print(deviation_table())
    lines = console.file.getvalue().splitlines()
    (b7,) = (line for line in lines if "B7" in line)
    for cell in ("3.1", "3.583", "6.21", "7.27", "600", "595.8", "88.97", "96.28"):
        assert cell in b7
    assert any("L2" in line and "15.30" in line for line in lines)


def test_the_papers_example_before_and_after_rounding():
    """gamma = 1.1, phi = 7, the paper's stage 4: 56 pixels, 40 channels, 2 layers in B0."""
    scaled = compound(7, gamma=1.1)
    assert round(scaled.depth, 2) == 3.58
    assert round(scaled.width, 2) == 1.95
    assert round(scaled.exact_resolution / 224, 2) == 1.95
    assert round(56 * scaled.exact_resolution / 224) == 109
    assert round(40 * scaled.width) == 78
    assert round(2 * scaled.depth) == 7
    stage = scaled_model_config(7, gamma=1.1).stages[2]
    assert (stage.channels, stage.layers) == (80, 8)


@pytest.mark.parametrize("phi", [-4, -0.5, 0, 0.5, 1, 2.5, 7, 12.25])
def test_the_formula_is_the_papers(phi):
    scaled = compound(phi)
    assert scaled.depth == pytest.approx(1.2**phi)
    assert scaled.width == pytest.approx(1.1**phi)
    assert scaled.exact_resolution == pytest.approx(224 * 1.15**phi)
    assert scaled.cost == pytest.approx((1.2 * 1.1**2 * 1.15**2) ** phi)
    assert scaled.resolution % 4 == 0
    assert abs(scaled.resolution - scaled.exact_resolution) <= 2
    # Multiply-adds follow the law to within the roundings, which only add layers.
    if phi > 0:
        growth = count_macs(scaled_model_config(phi)) / count_macs(scaled_model_config(0))
        assert 0.8 < growth / scaled.cost < 1.5


def test_phi_zero_is_b0():
    used, formula = official("b0"), compound(0)
    fields = ("width", "depth", "resolution", "dropout")
    assert [getattr(used, field) for field in fields] == [getattr(formula, field) for field in fields]


def test_dropout_lies_between_the_published_ones():
    assert compound(-3).dropout == 0.2
    assert compound(20).dropout == 0.5
    values = [compound(phi / 10).dropout for phi in range(-10, 100)]
    assert values == sorted(values)
    for row in deviations()[:9]:
        assert compound(row.phi_cost).dropout == pytest.approx(row.used.dropout)
    assert compound(3, dropout=0.0).dropout == 0.0


def test_a_resolution_may_be_rounded_otherwise():
    assert [compound(1, resolution_divisor=d).resolution for d in (1, 2, 8, 32)] == [258, 258, 256, 256]
    assert compound(0, base_resolution=33, resolution_divisor=2, stride=2).resolution == 34  # a half upwards


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(1, 2), st.floats(1, 1.5), st.floats(1, 1.5), st.integers(32, 600), st.floats(0, 1))
def test_the_limits_are_exactly_what_the_formula_takes(alpha, beta, gamma, resolution, share):
    options = {"alpha": alpha, "beta": beta, "gamma": gamma, "base_resolution": resolution}
    low, high = phi_limits(**options)
    assert low <= 0 <= high
    if math.isfinite(low) and math.isfinite(high):
        phi = low + share * (high - low)
        scaled = compound(min(max(phi, low), high), **options)
        assert scaled.resolution >= 32
        for outside in (low - 1e-3 - 1e-6 * abs(low), high + 1e-3 + 1e-6 * high):
            with pytest.raises(ValueError, match="phi must be from"):
                compound(outside, **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"phi": math.nan}, ValueError, "phi must be a finite number"),
        ({"phi": math.inf}, ValueError, "phi must be a finite number"),
        ({"phi": "2"}, TypeError, "phi must be a number, got str"),
        ({"phi": True}, TypeError, "phi must be a number, got bool"),
        ({"phi": 1e9}, ValueError, r"phi must be from -13.92 to 22.81 .* got 1e\+09"),
        ({"phi": -15}, ValueError, "network's stride of 32"),
        ({"phi": 1, "alpha": -1.2}, ValueError, "alpha must be a finite number from 1 to 4, got -1.2"),
        ({"phi": 1, "beta": math.nan}, ValueError, "beta must be"),
        ({"phi": 1, "gamma": 100}, ValueError, "gamma must be"),
        ({"phi": 1, "alpha": None}, TypeError, "alpha must be a number"),
        ({"phi": 1, "base_resolution": 16}, ValueError, "base_resolution must be from the network's stride"),
        ({"phi": 1, "base_resolution": 224.0}, TypeError, "base_resolution must be an integer"),
        ({"phi": 1, "resolution_divisor": 0}, ValueError, "resolution_divisor must be at least 1"),
        ({"phi": -13.5, "resolution_divisor": 100}, ValueError, "resolution must be from the network's"),
        ({"phi": 22.5, "resolution_divisor": 10_000}, ValueError, "to 8192, got .* pixels rounded to 10000"),
        ({"phi": 1, "dropout": 1.5}, ValueError, "dropout must be"),
    ],
)  # fmt: skip
def test_bad_input_is_named(options, error, words):
    with pytest.raises(error, match=words):
        compound(**options)
