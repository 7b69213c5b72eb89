"""JAX as a peer: its translation with a stand-in made of PyTorch, and for real where it is installed."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.cases import Case
from benchmarks.peers import PEERS, PeerUnavailable, jax_xla
from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.subject import distinct_images, make_oracle, seeded_model
from effnet_fast.measure import judge_logits


def conv_general_dilated(
    x, weight, *, window_strides, padding, rhs_dilation, dimension_numbers, feature_group_count, precision
):
    """JAX's convolution as its documentation has it, in PyTorch."""
    assert dimension_numbers == ("NHWC", "HWIO", "NHWC")
    assert precision == "highest"
    (top, bottom), (left, right) = padding
    x = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
    weight = weight.permute(3, 2, 0, 1)
    y = F.conv2d(x, weight, None, window_strides, 0, rhs_dilation, feature_group_count)
    return y.permute(0, 2, 3, 1)


def pad(x, around, constant_values):
    flat = [amount for axis in reversed(around) for amount in axis]
    return F.pad(x, flat, value=constant_values)


FAKE = SimpleNamespace(
    lax=SimpleNamespace(
        Precision=SimpleNamespace(HIGHEST="highest"), conv_general_dilated=conv_general_dilated
    ),
    numpy=SimpleNamespace(
        pad=pad,
        mean=lambda x, axis, keepdims: x.mean(axis, keepdim=keepdims),
        clip=torch.clamp,
        matmul=lambda x, y, precision: x @ y,
    ),
    nn=SimpleNamespace(silu=F.silu, sigmoid=torch.sigmoid),
)


# Squeeze-excite; padding of one side; FusedMBConv; ReLU6 without squeeze-excite.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("efficientnet_b0", 64),
        ("tf_efficientnet_b0", 70),
        ("efficientnetv2_s", 64),
        ("efficientnet_lite0", 64),
    ],
)
def test_the_translation_is_the_network(name, size):
    model, images = seeded_model(name, size), distinct_images(size)
    fold_batch_norms(model)
    with torch.no_grad():
        expected = model.double()(images.double())
        network, weights = jax_xla.translate(model, images.double(), FAKE)
        found = network(weights, images.double().permute(0, 2, 3, 1))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", [nn.MaxPool2d(2), nn.Hardswish()], ids=["pooling", "hardswish"])
def test_what_has_no_translation_is_unavailable(part):
    with pytest.raises(PeerUnavailable, match="has no translation to JAX"):
        jax_xla.translate(part, torch.zeros(1, 3, 8, 8), FAKE)


def test_a_mean_over_other_dimensions_is_unavailable():
    class Means(nn.Module):
        def forward(self, x):
            return x.mean((1, 2))

    network, weights = jax_xla.translate(Means(), torch.zeros(1, 3, 8, 8), FAKE)
    with pytest.raises(PeerUnavailable, match="a mean over"):
        network(weights, torch.zeros(1, 8, 8, 3))


def test_other_threads_than_xlas_are_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", FAKE)
    monkeypatch.setattr(jax_xla, "usable_cores", lambda: 7)
    with pytest.raises(PeerUnavailable, match="XLA takes all 7 cores, the other peers 1 threads"):
        PEERS["jax"].prepare(nn.Flatten(), torch.zeros(1, 3, 4, 4), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_jax_itself_passes_the_gate(dtype, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(jax_xla, "usable_cores", torch.get_num_threads)
    model, images = seeded_model("efficientnet_b0", 32), distinct_images(32)
    oracle = make_oracle(model, images, [dtype])
    exact, stock = oracle.rows(Case("efficientnet_b0", 32, 4, str(dtype).removeprefix("torch."), 0.1))
    prepared = PEERS["jax"].prepare(copy.deepcopy(model), images, dtype)
    logits = prepared.call()
    assert logits.dtype == dtype
    verdict = judge_logits(logits, oracle=exact, stock=stock, dtype=dtype, terms=oracle.terms)
    assert verdict.passed, verdict.reason
    assert prepared.details["platform"] == "cpu"
