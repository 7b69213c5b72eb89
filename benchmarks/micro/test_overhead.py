"""Host overhead: what a call costs when there is next to nothing to compute, and what an import costs.

Run by `make bench-micro`, or `python -m pytest benchmarks/micro -o addopts= --benchmark-only`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import effnet_fast
from benchmarks.overhead import without_kernels
from effnet_fast import ops

CHANNELS = 8


def channels_last(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Overhead, not parallelism."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pointwise() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return channels_last(1, CHANNELS, 1, 1), torch.randn(CHANNELS, CHANNELS, 1, 1), torch.randn(CHANNELS)


@pytest.mark.benchmark(group="pointwise_conv 8 > 8 on one pixel")
class TestOneOperator:
    def test_stock_conv2d_and_silu(self, benchmark, pointwise):
        x, weight, bias = pointwise
        with torch.inference_mode():
            benchmark(lambda: torch.nn.functional.silu(torch.nn.functional.conv2d(x, weight, bias)))

    def test_public_function(self, benchmark, pointwise):
        x, weight, bias = pointwise
        with torch.inference_mode():
            benchmark(lambda: ops.pointwise_conv(x, weight, bias, activation="silu"))

    @pytest.mark.parametrize("backend", ["cpu", "reference"])
    def test_packed_handle(self, benchmark, pointwise, backend):
        x, weight, bias = pointwise
        packed = ops.pack("pointwise_conv", weight, bias, activation="silu", backend=backend)
        run = ops.handle("pointwise_conv", "packed_into", backend)
        y = torch.empty_like(x)
        with torch.inference_mode():
            benchmark(lambda: run(y, x, packed, CHANNELS, "silu"))


@pytest.mark.benchmark(group="public functions on one pixel")
@pytest.mark.parametrize("op", ["depthwise_conv", "depthwise_conv_pool", "dense_conv", "head_pool"])
def test_public_function(benchmark, op):
    x = channels_last(1, CHANNELS, 1, 1)
    shape = {
        "depthwise_conv": (CHANNELS, 1, 3, 3),
        "depthwise_conv_pool": (CHANNELS, 1, 3, 3),
        "dense_conv": (CHANNELS, CHANNELS, 3, 3),
        "head_pool": (CHANNELS, CHANNELS, 1, 1),
    }[op]
    weight, bias = torch.randn(*shape), torch.randn(CHANNELS)
    function = getattr(ops, op)
    with torch.inference_mode():
        benchmark(lambda: function(x, weight, bias, activation="silu"))


@pytest.mark.benchmark(group="whole network, 32 x 32 pixels, batch 1: mostly overhead")
@pytest.mark.parametrize("form", ["stock", "engine"])
def test_engine_call(benchmark, form):
    torch.manual_seed(0)
    model = effnet_fast.create_model("efficientnet_b0").eval().requires_grad_(False)
    images = channels_last(1, 3, 32, 32)
    if form == "engine":
        run = effnet_fast.InferenceEngine(model, batch_size=1, image_size=32)
    else:
        run = model.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        benchmark(lambda: run(images))


@pytest.mark.benchmark(group="engine(x) of B0 at 224 pixels, batch 1, without its kernels")
@pytest.mark.parametrize("part", ["whole call", "operators only"])
def test_engine_call_without_kernels(benchmark, part):
    """What is left when every tensor of the bound program is empty; see benchmarks/overhead.py."""
    torch.manual_seed(0)
    model = effnet_fast.create_model("efficientnet_b0").eval().requires_grad_(False)
    images = channels_last(1, 3, 224, 224)
    engine = effnet_fast.InferenceEngine(model, batch_size=1)
    with without_kernels(engine, 1) as program, torch.inference_mode():
        run = engine if part == "whole call" else program.run
        benchmark(lambda: run(images))


@pytest.mark.benchmark(group="import, in a fresh process")
@pytest.mark.parametrize("module", ["torch", "effnet_fast", "effnet_fast.cli"])
def test_import(benchmark, module):
    def run() -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    benchmark.pedantic(run, rounds=3, iterations=1, warmup_rounds=1)


@pytest.mark.benchmark(group="choice of a backend")
def test_resolve(benchmark):
    from effnet_fast.backends import resolve

    benchmark(lambda: resolve("pointwise_conv", "auto", device_type="cpu", dtype=torch.float32))
