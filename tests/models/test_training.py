"""The models as trainable modules: learning, copying, saving, compiling."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from effnet_fast.models import create_model

NAME = "tf_efficientnet_b0"


def test_training_lowers_the_loss():
    model = create_model(NAME, num_classes=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    target = torch.arange(4).repeat(4)
    x = torch.randn(4, 3, 1, 1)[target] + 0.3 * torch.randn(16, 3, 32, 32)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) / 4 < 0.5 * losses[0]
    assert model.stem.norm.num_batches_tracked == 10


def test_bfloat16_autocast_trains():
    model = create_model("efficientnet_b0", num_classes=4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(torch.randn(4, 3, 32, 32)).float(), torch.arange(4))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_equal_and_independent(duplicate, random_model):
    model = random_model(NAME)
    other = duplicate(model)
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(model(x), other(x))
        other.stem.conv.weight.zero_()
        assert model.stem.conv.weight.abs().sum() > 0
    assert other.config == model.config
    assert other.preprocessing == model.preprocessing


def test_state_dict_round_trip(random_model):
    model, other = random_model(NAME), create_model(NAME).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(model(x), other(x))


def test_evaluation_is_deterministic_and_training_is_not():
    model = create_model(NAME)
    x = torch.randn(4, 3, 40, 40)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype, random_model):
    model = random_model(NAME)
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        expected = model(x)
        got = model.to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    limit = 2e-5 if dtype is torch.float64 else 0.1
    assert (got.float() - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b0"])
def test_export_has_no_graph_breaks(name, random_model):
    model = random_model(name)
    x = torch.randn(1, 3, 45, 64)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


def test_forward_features(random_model):
    model = random_model(NAME)
    assert model.forward_features(torch.randn(1, 3, 65, 96)).shape == (1, 1280, 3, 3)


def test_configuration_is_required():
    with pytest.raises(TypeError, match="config must be an EfficientNetConfig, got str"):
        type(create_model(NAME))("efficientnet_b0")
