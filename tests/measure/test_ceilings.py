"""Ceilings: what is refused, what the times of the probes mean, and rates of this machine that make sense."""

from __future__ import annotations

import dataclasses
import math
import types

import pytest
import torch

from effnet_fast.measure import ceilings as module
from effnet_fast.measure.ceilings import Ceilings, measure_ceilings
from effnet_fast.measure.probes import LAUNCHES, Probes

GOOD = Ceilings(
    memory_bytes=4e10,
    cache_bytes=1e11,
    cache_size=1 << 25,
    matrix_macs=1e11,
    fused_macs=9e10,
    vector_macs=4e10,
    special=2e10,
    launch_seconds=2e-6,
    additive=True,
)
NUMBERS = [field.name for field in dataclasses.fields(Ceilings) if field.name != "additive"]


@pytest.fixture(autouse=True)
def nothing_measured_yet(monkeypatch):
    monkeypatch.setattr(module, "_measured", {})


def test_round_trip():
    assert Ceilings(**dataclasses.asdict(GOOD)) == GOOD


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_rates_must_be_positive_and_finite(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be positive and finite, got {value}"):
        dataclasses.replace(GOOD, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("special", "1e9"), ("special", True), ("additive", 1)])
def test_types(name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        dataclasses.replace(GOOD, **{name: value})


def test_refused():
    with pytest.raises(TypeError, match="float32, float16, bfloat16, got torch.float64"):
        measure_ceilings("cpu", torch.float64)
    with pytest.raises(RuntimeError, match='"cpu" and "cuda", got device \'meta\''):
        measure_ceilings("meta", torch.float32)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="finds no CUDA device"):
            measure_ceilings("cuda:1", torch.float32)


@pytest.mark.parametrize("scale", [1, 3])
def test_rates_are_those_that_the_times_were_made_of(scale):
    """Times of a machine with known rates, from multiply-adds counted here by hand."""
    matrix, fused, vector, special = 2e11, 1e11, 5e10, 1e10
    outputs = 196 * 1152  # of the fused probe: 14 x 14, 128 > 1152 channels
    seconds = {
        "matrix": scale * 2 * 196 * 256 * 256 / matrix,
        "fused": scale * (outputs * 128 / fused + 9 * outputs / vector),
        "depthwise 3": scale * 784 * 96 * 9 / vector,
        "depthwise 5": scale * 784 * 96 * 25 / vector,
        "without silu": 1e-5,
        "with silu": 1e-5 + scale * 2 * (2 * 784 * 96) / special,
    }
    probes = Probes(torch.float32, torch.device("cpu"), scale)
    assert probes.rates(seconds) == pytest.approx(
        {"matrix_macs": matrix, "fused_macs": fused, "vector_macs": vector, "special": special}
    )


def test_noise_leaves_rates_positive():
    seconds = dict.fromkeys(Probes(torch.float32, torch.device("cpu")).calls(), 1e-4)
    seconds |= {"with silu": 9e-5, "depthwise 3": 1.0}
    rates = Probes(torch.float32, torch.device("cpu")).rates(seconds)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_this_machine(dtype):
    threads = torch.get_num_threads()
    random = torch.random.get_rng_state()
    measured = measure_ceilings("cpu", dtype)
    assert measure_ceilings(torch.device("cpu"), dtype) is measured
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), random)
    assert measured.additive
    assert measured.cache_bytes >= measured.memory_bytes
    assert measured.launch_seconds < 1e-3


def test_rates_of_a_core_count_for_every_thread(monkeypatch):
    """With a timer that says 1 ms for everything, and notes how many threads were at it."""
    used = []

    def timer(call):
        used.append(torch.get_num_threads())
        return 1e-3

    monkeypatch.setattr(module, "_seconds_on_host", timer)
    threads = torch.get_num_threads()
    made = {}
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            made[count] = measure_ceilings("cpu", torch.float32)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    one, two = made[1], made[2]
    assert used.count(2) == 2 * 3  # three rounds of the two copies; what computes is timed alone
    assert one.matrix_macs == pytest.approx(2 * 196 * 256 * 256 / 1e-3)
    for name in ("matrix_macs", "fused_macs", "vector_macs", "special"):
        assert getattr(two, name) == pytest.approx(2 * getattr(one, name))
    assert two.memory_bytes == one.memory_bytes
    assert two.launch_seconds == one.launch_seconds == pytest.approx(1e-3 / LAUNCHES)


def test_the_calls_do_the_work_that_the_rates_count(monkeypatch):
    """Multiply-adds of the tensors that the operators are given, against the rates for a second each."""
    done = {}

    def recording(self, op, weights, activation):
        def call(y, x, *rest):
            taps, per_output = weights[-2], weights[-2][0].numel()
            assert taps.shape[0] == y.shape[1]
            done.setdefault(op, []).append(y.numel() * per_output)
            if op == "expand_depthwise":
                assert x.shape[2:] == y.shape[2:]
                done.setdefault("expansion", []).append(y.numel() * weights[0][0].numel())

        return call, torch.empty(0)

    monkeypatch.setattr(Probes, "_packed", recording)
    probes = Probes(torch.float32, torch.device("cpu"), scale=2)
    for call in probes.calls().values():
        call()
    assert len(done["pointwise_conv"]) == 1
    vector = sum(done["depthwise_conv"])
    seconds = {"matrix": 1.0, "depthwise 3": 0.5, "depthwise 5": 0.5, "without silu": 1.0, "with silu": 2.0}
    rates = probes.rates(seconds | {"fused": 1 + done["expand_depthwise"][0] / vector})
    assert rates["matrix_macs"] == done["pointwise_conv"][0]
    assert rates["vector_macs"] == vector
    assert rates["fused_macs"] == pytest.approx(done["expansion"][0])
    outputs = done["expand_depthwise"][1] / 9
    assert done["expand_depthwise"][1] == done["expand_depthwise"][2]
    assert rates["special"] == 2 * outputs


@pytest.mark.parametrize("fused_kernel", [True, False])
def test_cuda_arithmetic_with_a_clock_of_ours(monkeypatch, fused_kernel):
    """The CUDA path with CPU tensors and a timer that says 1 ms."""
    properties = types.SimpleNamespace(L2_cache_size=2 << 20, multi_processor_count=10, clock_rate=1_000_000)
    calls = []

    def timer(call):
        calls.append(torch.backends.cuda.matmul.allow_tf32)
        call()
        return 1e-3

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(module, "_seconds_on_cuda", timer)
    monkeypatch.setattr(module, "_PRODUCT", 64)
    monkeypatch.setattr(module, "has_fused_kernel", lambda device, dtype: fused_kernel)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        made = module._of_cuda(torch.float32, torch.device("cpu"))
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert not any(calls)
    assert made.matrix_macs == pytest.approx(64**3 / 1e-3)
    assert made.special == pytest.approx(16 * 10 * 1e9)  # 1 GHz, 10 multiprocessors
    assert made.memory_bytes == pytest.approx((64 << 20) / 1e-3)
    assert made.cache_bytes == made.memory_bytes  # 1 MiB in as long says nothing about the cache
    assert made.vector_macs == pytest.approx(2 * 784 * 96 * 34 / 2e-3)
    assert made.launch_seconds == pytest.approx(1e-3 / LAUNCHES)
    assert (made.fused_macs == made.matrix_macs) is not fused_kernel
    assert not made.additive


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpu(dtype):
    measured = measure_ceilings("cuda", dtype)
    assert not measured.additive
    assert measured.cache_bytes >= measured.memory_bytes > 1e10
    assert measured.launch_seconds < 1e-3
