"""Rates of GPUs: data sheets that agree with themselves, nominal and measured ones told apart."""

from __future__ import annotations

import dataclasses
import types

import pytest
import torch

from effnet_fast.measure import gpu_rates
from effnet_fast.measure.ceilings import Ceilings
from effnet_fast.measure.chips import CHIPS, find_chip
from effnet_fast.measure.gpu_rates import chip_of, measured_rates, nominal_rates, rates_from

CEILINGS = Ceilings(
    memory_bytes=4.1e12,
    cache_bytes=6e12,
    cache_size=50 << 20,
    matrix_macs=3.9e14,
    fused_macs=1e14,
    vector_macs=1e13,
    special=3.7e12,
    launch_seconds=6e-6,
    additive=False,
)
# As torch.cuda.get_device_properties gives them: clocks in kHz, the bus in bits.
PROPERTIES = types.SimpleNamespace(
    name="NVIDIA A100-SXM4-80GB",
    major=8,
    minor=0,
    multi_processor_count=108,
    clock_rate=1_410_000,
    memory_clock_rate=1_593_000,
    memory_bus_width=5120,
    L2_cache_size=40 << 20,
    shared_memory_per_multiprocessor=164 << 10,
)

# TFLOPS of dense 16-bit products with float32 sums, and of float32: the makers' figures, another line of the
# sheets.
PUBLISHED = {
    "h200": (989.4, 66.9),
    "h100": (989.4, 66.9),
    "a100": (312, 19.5),
    "l4": (121, 30.3),
    "rtx4090": (165.2, 82.6),
    "rtx3090": (71, 35.6),
}


@pytest.mark.parametrize("name", CHIPS)
def test_data_sheets_agree_with_their_own_operations_a_second(name):
    tensor, single = PUBLISHED[name]
    chip, rates = CHIPS[name], nominal_rates(CHIPS[name])
    assert 2e-12 * chip.tensor_macs * chip.multiprocessors * chip.clock == pytest.approx(tensor, rel=0.01)
    # Hopper's float32 figure is of a higher clock, 1.98 GHz.
    assert 2e-12 * rates.fma == pytest.approx(single, rel=0.08)
    assert chip.source


def test_nominal_rates_say_so():
    rates = nominal_rates(CHIPS["h200"])
    assert not rates.measured
    assert "nominal" in rates.origin
    assert rates.name == "NVIDIA H200"
    assert 4.2e12 < rates.memory_bytes < 4.4e12  # a copy, not the data sheet's 4.8
    # mma.sync reaches 0.62 of Hopper's tensor cores and all of Ampere's.
    assert 2e-12 * rates.tensor_macs == pytest.approx(0.62 * 989.4, rel=0.01)
    assert 2e-12 * nominal_rates(CHIPS["a100"]).tensor_macs == pytest.approx(312, rel=0.01)


def test_measured_rates_are_those_of_the_ceilings():
    chip = chip_of(PROPERTIES)
    assert (chip.capability, chip.multiprocessors, chip.cache_size) == (80, 108, 40 << 20)
    assert chip.memory_bytes == pytest.approx(2.039e12, rel=0.001)
    rates = rates_from(CEILINGS, chip)
    assert rates.measured
    assert "measured in this process" in rates.origin
    assert (rates.memory_bytes, rates.cache_bytes) == (4.1e12, 6e12)
    assert rates.tensor_macs == 3.9e14  # on Ampere PyTorch's product uses mma.sync as well
    hopper = dataclasses.replace(chip, capability=90)
    assert rates_from(CEILINGS, hopper).tensor_macs == pytest.approx(3.9e14 * 0.62 / 0.80)
    assert rates.fma == 64 * 108 * 1.41e9
    assert rates.special == 16 * 108 * 1.41e9


def test_a_kernel_in_a_graph_costs_a_gap_and_never_more_than_a_launch():
    chip = chip_of(PROPERTIES)
    assert rates_from(CEILINGS, chip).launch_seconds == 2e-6
    assert rates_from(CEILINGS, dataclasses.replace(chip, capability=90)).launch_seconds == 1.2e-6
    quick = dataclasses.replace(CEILINGS, launch_seconds=1e-6)
    assert rates_from(quick, chip).launch_seconds == 1e-6


def test_the_device_at_hand_is_asked_and_measured(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_rates, "measure_ceilings", lambda *given: asked.append(given) or CEILINGS)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: PROPERTIES)
    assert measured_rates("cuda:0", torch.float16) == rates_from(CEILINGS, chip_of(PROPERTIES))
    assert asked == [("cuda:0", torch.float16)]


@pytest.mark.parametrize("name", ["h200", "H200", "RTX 4090", "rtx-4090", "A100"])
def test_chips_are_found_in_any_spelling(name):
    assert find_chip(name) in CHIPS.values()


@pytest.mark.parametrize("name", ["", "h2000", "cpu"])
def test_unknown_chips_are_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=f"chip must be one of h200, .*rtx4090.*, got '{name}'"):
        find_chip(name)
