"""What fuse() refuses, and in which words; and that a refused or failed call changes nothing."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn

from effnet_fast import backends
from effnet_fast.fusion import fuse, repack, state, unfuse
from effnet_fast.fusion.program import bind
from tests.fusion.networks import close, counted_programs


def test_nothing_to_fuse() -> None:
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    with pytest.warns(UserWarning, match="found nothing to fuse in this Sequential$"):
        assert fuse(model) is model
    resnet = timm.create_model("resnet10t").eval()
    with pytest.warns(
        UserWarning, match=r"nothing to fuse in this ResNet \(conv1.0: a convolution outside of the"
    ):
        assert fuse(resnet) is resnet
    with pytest.raises(
        ValueError, match=r"strict=True, and \d+ parts of the model stay unfused: .*; and \d+ more"
    ):
        fuse(resnet, strict=True)


def test_an_already_fused_model_is_no_warning(fused) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fuse(fused) is fused


@pytest.mark.parametrize("function", [fuse, unfuse, repack])
@pytest.mark.parametrize("model", [None, "efficientnet_b0", torch.zeros(3), nn.Linear])
def test_no_module(function, model) -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got"):
        function(model)


def test_models_that_have_no_forward_to_exchange(model, x) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
    with pytest.raises(TypeError, match=r"model is a torch\.jit module"):
        fuse(traced)
    with pytest.raises(TypeError, match=r"model\.1 is a torch\.jit module"):
        fuse(nn.Sequential(model, traced))
    with pytest.raises(TypeError, match=r"compiled by torch\.compile: fuse first"):
        fuse(torch.compile(model))
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(TypeError, match=r"model\.classifier is a quantised Linear: fuse the float model"):
        fuse(quantised)


def test_meta(model) -> None:
    with pytest.raises(ValueError, match=r"parameter weight of model\.conv_stem is on the meta device"):
        fuse(model.to("meta"))


def test_arguments(model) -> None:
    with pytest.raises(NotImplementedError, match="no backward kernels yet"):
        fuse(model, mode="training")
    with pytest.raises(ValueError, match="mode = 'eval', expected \"inference\""):
        fuse(model, mode="eval")
    with pytest.raises(ValueError, match="backend"):
        fuse(model, backend="no such backend")


@pytest.mark.parametrize("inplace", [True, False])
def test_a_fuse_that_fails_leaves_the_model_as_it_was(model, x, monkeypatch, inplace) -> None:
    before = {name: (module, type(module), set(vars(module))) for name, module in model.named_modules()}
    with torch.no_grad():
        expected = model(x)
    calls = []

    def failing(block, *arguments):
        calls.append(block)
        if len(calls) == 4:
            raise RuntimeError("the fourth")
        return bind(block, *arguments)

    monkeypatch.setattr(state, "bind", failing)
    with pytest.raises(RuntimeError, match="the fourth"):
        fuse(model, inplace=inplace)
    assert {
        name: (module, type(module), set(vars(module))) for name, module in model.named_modules()
    } == before
    with torch.no_grad(), counted_programs() as ran:
        assert torch.equal(model(x), expected)
    assert not ran


def test_a_backend_that_cannot_serve(model) -> None:
    before = [type(module) for module in model.modules()]
    with pytest.raises(RuntimeError, match="cuda"):
        fuse(model, backend="cuda", inplace=True)
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize("backend", ["cpu", "reference", backends.Backend.CPU])
def test_backends_by_name(model, x, backend) -> None:
    fused = fuse(model, backend=backend)
    with torch.no_grad(), counted_programs() as ran:
        assert close(fused(x), model(x))
    assert len(ran) == 7
    fused.double()
    with torch.no_grad():
        assert torch.equal(fused(x.double()), model.double()(x.double()))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 4, 32, 32),
        torch.zeros(3, 32),
        torch.zeros(2, 3, 32, 32, dtype=torch.float64),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 0, 32),
        "an image",
        None,
    ],
    ids=["channels", "dimensions", "float64", "uint8", "empty", "text", "none"],
)
def test_wrong_images_are_the_originals_error(model, fused, wrong) -> None:
    errors = []
    for each in (model, fused):
        with torch.no_grad(), pytest.raises((RuntimeError, TypeError, AttributeError, ValueError)) as caught:
            each(wrong)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_images_that_are_smaller_than_an_unpadded_kernel() -> None:
    model = torchvision.ops.Conv2dNormActivation(3, 8, 5, padding=0).eval()
    fused = fuse(nn.Sequential(model))
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
            fused(torch.zeros(1, 3, 4, 9))
        x = torch.randn(1, 3, 5, 9)
        assert close(fused(x), model(x))
