"""Networks with batch-norm statistics as after training, and a tiny one for everything but parity."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from effnet_fast.inference import BlockForm
from effnet_fast.inference.draft import draft
from effnet_fast.models import create_model
from effnet_fast.models.efficientnet import EfficientNet
from tests.networks import make_tiny, randomise_batch_norms


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for two; tests of parallel runs set the number themselves (`threads`)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def take(monkeypatch):
    """A function: a form -> engines made after it have it for every block that can take it."""

    def force(form: BlockForm) -> None:
        monkeypatch.setattr("effnet_fast.inference.engine.draft", functools.partial(draft, forms=form))

    return force


@pytest.fixture(scope="session")
def trained():
    """A function: name -> that model as after training, always the same; it must not be changed."""

    @functools.lru_cache(maxsize=2)
    def make(name: str) -> EfficientNet:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return randomise_batch_norms(create_model(name))

    return make


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
