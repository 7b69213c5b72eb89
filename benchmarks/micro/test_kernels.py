"""Kernels of the CPU: the costliest layer of B0 of every operator, one image, beside stock PyTorch.

What `python -m benchmarks ops` does for every layer, for a look at one kernel while it is being changed:
`python -m pytest benchmarks/micro/test_kernels.py --benchmark-only -k pointwise`.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.layers import LayerCase, distinct_layers
from benchmarks.operators import Contest
from benchmarks.rows import OK
from effnet_fast.inference.cost import work

MODEL = "efficientnet_b0"


def costliest() -> list[LayerCase]:
    """A case for each operator of the three-kernel plan and each dtype that a CPU is for."""
    chosen = {}
    for layer, _ in distinct_layers(MODEL):
        macs = work(layer, 1, torch.float32, torch.float32).macs
        if layer.operator not in chosen or macs > chosen[layer.operator][0]:
            chosen[layer.operator] = macs, layer
    return [
        LayerCase(MODEL, layer, 1, 1, dtype)
        for _, layer in chosen.values()
        for dtype in ("float32", "bfloat16")
    ]


@pytest.mark.parametrize("peer", ["eager", "cpu"])
@pytest.mark.parametrize("case", costliest(), ids=lambda case: f"{case.layer.operator}-{case.dtype}")
def test_kernel(benchmark, case, peer):
    benchmark.group = f"{case.layer.operator}, {case.layer.name} of {MODEL}, {case.dtype}"
    row: dict[str, object] = {}
    call = Contest(case, "cpu").prepare(peer, row)
    assert row["status"] == OK, row["reason"]  # a kernel that computes something else has no time
    benchmark(call)
