"""The engine's activations against eager's, by a deterministic account of what is alive."""

from __future__ import annotations

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effnet_fast import InferenceEngine
from effnet_fast.inference import CpuLimits, fold, network_layers, plan_network
from effnet_fast.models import create_model


class LiveBytes(TorchDispatchMode):
    """Bytes of every storage that operators return, while anything holds it; `peak` is the most at any time.

    The operators' own scratch is not seen, which favours eager.
    """

    def __init__(self, *known: torch.Tensor):
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.live.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(nbytes for _, nbytes in self.live.values()))
        return result


def eager_peak(model, x: torch.Tensor) -> int:
    with torch.no_grad(), LiveBytes(x, *model.parameters(), *model.buffers()) as account:
        model(x)
    return account.peak


def test_account_of_live_bytes():
    x = torch.zeros(1000)
    with torch.no_grad(), LiveBytes(x) as account:
        y = x + 1
        z = y * 2
        del y
        z = z.view(10, 100).relu_()
        z = z + 1
        del z
        x.add_(1)
    assert account.peak == 8000
    assert account.live == {}


@pytest.mark.parametrize(
    ("size", "batch", "most"), [(64, 1, 0.55), (64, 8, 0.55), (224, 1, 0.55), (224, 8, 0.25)]
)
def test_engine_needs_at_most_0_55_of_eager(size, batch, most):
    """B0 in channels_last, the leaner eager form (its in-place activations included)."""
    model = create_model("efficientnet_b0").eval().to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    eager = eager_peak(model, x)
    engine = InferenceEngine(model, batch_size=batch, image_size=size)
    logits_bytes = engine(x).nbytes
    assert engine.memory.activation_bytes + logits_bytes <= most * eager
    assert engine.memory.peak_bytes <= engine.memory.arena_bytes <= 1.1 * engine.memory.peak_bytes


@pytest.mark.parametrize("name", ["efficientnet_b4", "efficientnet_b7"])
def test_plan_of_larger_networks_needs_at_most_0_55_of_eager(name):
    """Without weights or images: eager's account on the meta device, the engine's from the plan alone."""
    with torch.device("meta"):
        model = create_model(name).eval()
    size = model.preprocessing.size
    eager = eager_peak(model, torch.zeros(16, 3, size, size, device="meta"))
    limits = CpuLimits(l2_bytes=1 << 20, l3_bytes=32 << 20, threads=2)
    plan = plan_network(
        network_layers(fold(model), (size, size)),
        batch=16,
        dtype=torch.float32,
        threads=limits.threads,
        budget_bytes=limits.budget_bytes,
    )
    assert plan.arena_bytes <= 0.55 * eager
    whole = plan_network(network_layers(fold(model), (size, size)), batch=16, dtype=torch.float32)
    assert whole.arena_bytes <= 0.55 * eager
