"""A small fused network beside its original."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from effnet_fast.fusion import fuse, state
from tests.fusion.networks import tiny


@pytest.fixture(autouse=True)
def one_thread(threads) -> None:
    """Images of 64 pixels are too small to share out, and waiting for a busy core takes far longer."""
    threads(1)


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch) -> None:
    """Warnings that are given once are given once a test."""
    monkeypatch.setattr(state, "_told", set())


@pytest.fixture(scope="session")
def _tiny() -> nn.Module:
    return tiny()


@pytest.fixture
def model(_tiny) -> nn.Module:
    """timm's, with 5 blocks; see `tests.fusion.networks.tiny`."""
    return copy.deepcopy(_tiny)


@pytest.fixture
def fused(model) -> nn.Module:
    """A fused copy of `model`."""
    return fuse(model)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 33, 32, generator=torch.Generator().manual_seed(5))
