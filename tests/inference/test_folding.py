"""Folding against batch norm in float64, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from effnet_fast.inference.folding import fold, fold_batch_norm


def make_norm(channels: int, eps: float, affine: bool = True, smallest: float = 1e-7) -> nn.BatchNorm2d:
    """Statistics over nine orders of magnitude, as trained networks have them."""
    norm = nn.BatchNorm2d(channels, eps=eps, affine=affine)
    norm.running_mean.normal_(0, 3)
    norm.running_var.copy_(torch.logspace(torch.tensor(smallest).log10().item(), 2.6, channels))
    if affine:
        nn.init.normal_(norm.weight, 1, 0.5)
        nn.init.normal_(norm.bias, 0, 2)
    return norm.eval()


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_fold_batch_norm_is_the_float64_map_rounded_once(eps, affine):
    weight, norm = torch.randn(12, 5, 3, 3), make_norm(12, eps, affine)
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    expected = norm.double()(F.conv2d(x, weight.double()))
    folded, bias = fold_batch_norm(weight, norm)
    assert folded.dtype == bias.dtype == torch.float32
    got = F.conv2d(x, folded.double(), bias.double())
    # Two terms of one rounding each: the folded weights' products and the bias.
    terms = F.conv2d(x.abs(), folded.double().abs()) + bias.double().abs()[:, None, None]
    half_ulp = torch.finfo(torch.float32).eps / 2
    assert ((got - expected).abs() <= half_ulp * terms * 1.0001).all()


@settings(max_examples=25, deadline=None)
@given(channels=st.integers(1, 9), eps=st.sampled_from([1e-6, 1e-5, 1e-3, 1e-2]), seed=st.integers(0, 99))
def test_fold_batch_norm_depthwise_property(channels, eps, seed):
    torch.manual_seed(seed)
    weight, norm = torch.randn(channels, 1, 3, 3), make_norm(channels, eps)
    x = torch.randn(1, channels, 5, 6, dtype=torch.float64)
    expected = norm.double()(F.conv2d(x, weight.double(), groups=channels))
    folded, bias = fold_batch_norm(weight, norm)
    got = F.conv2d(x, folded.double(), bias.double(), groups=channels)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_fold_batch_norm_refuses_batch_statistics():
    with pytest.raises(ValueError, match="running statistics"):
        fold_batch_norm(torch.randn(3, 1, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))


def test_fold_uses_every_layers_own_eps(tiny):
    norms = {name: module for name, module in tiny.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for i, norm in enumerate(norms.values()):
        norm.eps = 10.0 ** -(1 + i % 5)
    for conv in fold(tiny).convolutions():
        norm = norms[f"{conv.name}.norm"]
        weight = tiny.get_submodule(conv.name).conv.weight
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        expected = weight.double() * scale[:, None, None, None]
        torch.testing.assert_close(conv.weight.double(), expected, rtol=1.2e-7, atol=0)


def test_fold_keeps_the_structure(tiny):
    network = fold(tiny)
    assert (network.in_channels, network.num_classes, len(network.blocks)) == (3, 10, 6)
    assert [block.name for block in network.blocks] == [f"stages.{s}.{i}" for s in range(3) for i in range(2)]
    assert [block.expand is None for block in network.blocks] == [True, True, False, False, False, False]
    assert [block.residual for block in network.blocks] == [True, True, False, True, False, True]
    assert network.blocks[2].squeeze_excite.squeeze == 2
    assert network.blocks[2].depthwise.padding_for(16, 15) == (1, 2, 2, 2)


def test_fold_shares_no_memory_with_the_model(tiny):
    network = fold(tiny)
    before = [conv.weight.clone() for conv in network.convolutions()] + [network.classifier.weight.clone()]
    with torch.no_grad():
        for tensor in tiny.state_dict().values():
            tensor.zero_()
    after = [conv.weight for conv in network.convolutions()] + [network.classifier.weight]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(tensor.requires_grad for tensor in after)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_fold_reads_a_model_of_any_dtype(tiny, dtype):
    weights = fold(tiny.to(dtype)).stem.weight
    assert weights.dtype == torch.float32


def test_fold_refuses_training_mode(tiny):
    with pytest.raises(ValueError, match=r"evaluation mode.*model\.eval\(\)"):
        fold(tiny.train())
    tiny.eval()
    tiny.stages[1][0].depthwise.norm.train()
    with pytest.raises(ValueError, match=r"stages\.1\.0\.depthwise\.norm is in training mode"):
        fold(tiny)


@pytest.mark.parametrize(
    ("path", "module", "message"),
    [
        (
            "stages.1.0",
            nn.Identity(),
            r"model\.stages\.1\.0 must be one of MBConv, .*, FusedMBConv, ConvBlock, got Identity",
        ),
        (
            "stages.1.0.project.norm",
            nn.InstanceNorm2d(16),
            r"model\.stages\.1\.0\.project must be a convolution",
        ),
        ("stages.1.0.squeeze_excite", nn.Identity(), r"squeeze_excite must be a SqueezeExcite, got Identity"),
        ("classifier", nn.Identity(), r"model\.classifier must be a Linear, got Identity"),
        ("stem", nn.Conv2d(3, 8, 3), r"model\.stem must be a ConvNormAct, got Conv2d"),
    ],
)
def test_fold_names_what_it_does_not_understand(tiny, path, module, message):
    parent, _, name = path.rpartition(".")
    setattr(tiny.get_submodule(parent), name, module)
    with pytest.raises(TypeError, match=message):
        fold(tiny.eval())


def test_fold_refuses_other_models():
    with pytest.raises(TypeError, match=r"got Linear, which has no stem, stages, head, classifier"):
        fold(nn.Linear(2, 2).eval())
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got dict"):
        fold({})
