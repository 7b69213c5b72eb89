"""A model that was changed after it was made is refused, or the engine computes what it computes."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from effnet_fast.inference.folding import fold
from effnet_fast.models.efficientnet import EfficientNet
from tests.networks import TINY


class _Probabilities(EfficientNet):
    def forward(self, x):
        return super().forward(x).softmax(1)


class _Pooled(EfficientNet):
    def forward_features(self, x):
        return super().forward_features(x).relu()


class _Methods(EfficientNet):
    def describe(self):
        return "computes what its base class does"


class _Tripled(nn.BatchNorm2d):
    def forward(self, x):
        return 3 * super().forward(x)


@pytest.mark.parametrize("cls", [_Probabilities, _Pooled])
def test_a_subclass_with_a_forward_of_its_own_is_refused(cls):
    with pytest.raises(
        TypeError, match=f"must be an effnet_fast EfficientNet, got {cls.__name__} with a for"
    ):
        fold(cls(TINY).eval())


def test_a_subclass_that_computes_the_same_is_taken():
    assert fold(_Methods(TINY).eval()).num_classes == 10


def test_what_torch_compile_wraps_is_taken(tiny):
    assert torch.equal(fold(torch.compile(tiny)).stem.weight, fold(tiny).stem.weight)


@pytest.mark.parametrize(
    ("path", "module", "message"),
    [
        ("stages.1.0.expand.activation", nn.ReLU(), r"expand\.activation must be a SiLU, got ReLU"),
        ("stages.1.0.expand.norm", _Tripled(48), r"model\.stages\.1\.0\.expand must be .* and _Tripled"),
        ("stages.1.0.squeeze_excite.activation", nn.ReLU(), r"excite\.activation must be a SiLU, got ReLU"),
        ("stages.1.0.squeeze_excite.gate", nn.Tanh(), r"squeeze_excite\.gate must be a Sigmoid, got Tanh"),
        ("stages.1.0.squeeze_excite.reduce", nn.Conv2d(48, 2, 1, bias=False), r"reduce must be .* with bias"),
        ("dropout", nn.Softmax(1), r"model\.dropout must be a Dropout, got Softmax"),
        ("stages.3", nn.ReLU(), r"model\.stages\.3 must be a Sequential, got ReLU"),
    ],
)
def test_exchanged_parts_are_named(tiny, path, module, message):
    parent, _, name = path.rpartition(".")
    tiny.get_submodule(parent).add_module(name, module)
    with pytest.raises(TypeError, match=message):
        fold(tiny.eval())


@pytest.mark.parametrize(
    ("path", "argument", "value", "shown"),
    [
        ("stages.1.1.depthwise", "dilation", (2, 2), r"\(1, 1\), got \(2, 2\)"),
        ("stages.1.1.depthwise", "padding", (0, 0), r"\(2, 2\), got \(0, 0\)"),
        ("stages.1.1.depthwise", "padding_mode", "reflect", "'zeros', got 'reflect'"),
        ("stages.1.1.depthwise", "groups", 1, "96, got 1"),
        ("stages.1.1.project", "stride", (2, 2), r"\(1, 1\), got \(2, 2\)"),
        ("stages.1.1.project", "groups", 2, "1, got 2"),
    ],
)
def test_changed_convolutions_are_named(tiny, path, argument, value, shown):
    setattr(tiny.get_submodule(path).conv, argument, value)
    with pytest.raises(ValueError, match=rf"model\.{path}\.conv must have {argument}={shown}"):
        fold(tiny)


def test_a_norm_without_statistics_is_named(tiny):
    tiny.stages[1][0].expand.norm = nn.BatchNorm2d(48, track_running_stats=False)
    with pytest.raises(ValueError, match=r"model\.stages\.1\.0\.expand\.norm must track running statistics"):
        fold(tiny.eval())


def test_a_replaced_forward_is_refused(tiny):
    tiny.stages[1][0].expand.forward = lambda x: x
    with pytest.raises(ValueError, match=r"model\.stages\.1\.0\.expand\.forward was replaced"):
        fold(tiny)


def test_pruned_weights_are_taken_once_they_are_permanent(tiny):
    conv = tiny.stages[1][0].expand.conv
    prune.l1_unstructured(conv, "weight", 0.5)
    with pytest.raises(ValueError, match=r"expand\.conv\.weight is made from other parameters"):
        fold(tiny)
    prune.remove(conv, "weight")
    assert (fold(tiny).blocks[2].expand.weight == 0).float().mean() >= 0.5


def test_parametrised_weights_are_read_as_they_are_computed(tiny):
    conv = tiny.stages[1][0].expand.conv
    expected = fold(tiny).blocks[2].expand.weight
    parametrizations.weight_norm(conv)
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(2)  # the norm of every filter
    torch.testing.assert_close(fold(tiny.eval()).blocks[2].expand.weight, 2 * expected)


def test_hooks_are_mentioned(tiny, caplog):
    with caplog.at_level(logging.WARNING, "effnet_fast"):
        fold(tiny)
    assert not caplog.records
    tiny.stages[1][0].register_forward_hook(lambda *_: None)
    with caplog.at_level(logging.WARNING, "effnet_fast"):
        fold(tiny)
    assert "model.stages.1.0 has forward hooks: the engine does not run them" in caplog.text
