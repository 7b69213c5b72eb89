"""Networks with batch-norm statistics as after training, and a tiny one for everything but parity."""

from __future__ import annotations

import copy
import dataclasses
import functools

import pytest
import torch
from torch import nn

from effnet_fast.models import create_model
from effnet_fast.models.config import MBConvConfig
from effnet_fast.models.efficientnet import CONFIGS, EfficientNet


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for two; tests of parallel runs set the number themselves (`threads`)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def randomise_batch_norms(model: nn.Module, size: int = 128, images: int = 8) -> nn.Module:
    """Random gamma and beta, and the statistics of random images, moved a little: folding matters everywhere.

    The last maps must have well over 32 values a channel in all, else the statistics are of these images
    alone, and other images make the network blow up, in any arithmetic.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.normal_(0, 0.2)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    model(torch.randn(images, model.stem.conv.in_channels, size, size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_mean += 0.05 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return model.eval()


@pytest.fixture(scope="session")
def trained():
    """A function: name -> that model as after training, always the same; it must not be changed."""

    @functools.lru_cache(maxsize=2)
    def make(name: str) -> EfficientNet:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return randomise_batch_norms(create_model(name))

    return make


TINY = dataclasses.replace(
    CONFIGS["tf_efficientnet_b0"],
    name="tiny",
    stem_channels=8,
    stages=(
        MBConvConfig(expand=1, kernel=3, stride=1, channels=8, layers=2),
        MBConvConfig(expand=6, kernel=5, stride=2, channels=16, layers=2),
        MBConvConfig(expand=4, kernel=3, stride=2, channels=24, layers=2),
    ),
    head_channels=64,
    num_classes=10,
)


def make_tiny(**changes) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return randomise_batch_norms(EfficientNet(dataclasses.replace(TINY, **changes)), size=48)


@functools.cache
def _tiny() -> EfficientNet:
    return make_tiny()


@pytest.fixture
def tiny() -> EfficientNet:
    """Six blocks with and without expansion, skip and stride, SAME padding, k 3 and 5; for 32 x 32."""
    return copy.deepcopy(_tiny())


@pytest.fixture
def tiny_with():
    """A function: fields of the configuration to change -> the tiny network."""
    return make_tiny
