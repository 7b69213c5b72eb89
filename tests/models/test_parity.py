"""The same numbers as timm, torchvision and efficientnet_pytorch, from the same random weights."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.models import convert_state_dict, list_models

TOLERANCE = 2e-5  # of the largest logit, float32
SIZE = (45, 64)  # odd and even: SAME pads the two axes differently


def assert_same_logits(ours, theirs, library, size=SIZE):
    theirs = theirs.to_empty(device="cpu").eval()
    theirs.load_state_dict(convert_state_dict(ours.state_dict(), to=library), strict=True)
    x = torch.randn(2, ours.config.in_chans, *size)
    with torch.inference_mode():
        got, expected = ours(x), theirs(x)
    scale = expected.abs().max()
    assert torch.isfinite(expected).all()
    assert (expected[0] - expected[1]).abs().max() > 1e-2 * scale, "the images must matter"
    error = ((got - expected).abs().max() / scale).item()
    assert error <= TOLERANCE, f"relative error {error:.2e}"


# Above 100 million parameters, drawing them takes longer than everything else.
LARGE = ("v2_l", "v2_xl", "net_l2")
FAMILY = [
    pytest.param(name, marks=pytest.mark.slow if name.endswith(LARGE) else ()) for name in list_models()
]


@pytest.mark.parametrize("name", FAMILY)
def test_timm(name, random_model, peer_model):
    assert_same_logits(random_model(name), peer_model("timm", name), "timm")


@pytest.mark.parametrize("index", range(8))
def test_torchvision(index, random_model, peer_model):
    """torchvision runs B5..B7 with TensorFlow's epsilon and symmetric padding."""
    name = f"efficientnet_b{index}" if index < 5 else f"tf_efficientnet_b{index}"
    ours = random_model(name, padding="symmetric")
    assert_same_logits(ours, peer_model("torchvision", name), "torchvision")


@pytest.mark.parametrize("size", ["s", "m", pytest.param("l", marks=pytest.mark.slow)])
def test_torchvisions_v2(size, random_model, peer_model):
    """As B5..B7: TensorFlow's epsilon and symmetric padding."""
    ours = random_model(f"tf_efficientnetv2_{size}", padding="symmetric")
    assert_same_logits(ours, peer_model("torchvision", f"efficientnetv2_{size}"), "torchvision")


@pytest.mark.parametrize("width", ["035", "050", "075", "100", "140"])
def test_torchvisions_mobilenetv2(width, random_model, peer_model):
    name = f"mobilenetv2_{width}"
    assert_same_logits(random_model(name), peer_model("torchvision", name), "torchvision")


@pytest.mark.parametrize(
    "variant", [*(f"b{index}" for index in range(9)), pytest.param("l2", marks=pytest.mark.slow)]
)
def test_efficientnet_pytorch(variant, random_model, peer_model):
    name = f"tf_efficientnet_{variant}"
    assert_same_logits(random_model(name), peer_model("efficientnet_pytorch", name), "efficientnet_pytorch")


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (63, 66), (96, 97), (32, 32), (33, 5)])
@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("timm", "tf_efficientnet_b0"),
        ("efficientnet_pytorch", "tf_efficientnet_b0"),
        ("timm", "tf_efficientnetv2_b1"),
    ],
)
def test_same_padding_at_even_and_odd_sizes(library, name, size, random_model, peer_model):
    assert_same_logits(random_model(name), peer_model(library, name), library, size)


def test_other_classes_and_channels(random_model, peer_model):
    ours = random_model("efficientnet_b0", num_classes=11, in_chans=2)
    theirs = peer_model("timm", "efficientnet_b0", num_classes=11, in_chans=2)
    assert_same_logits(ours, theirs, "timm")


def test_channels_last_gives_the_same_logits(random_model):
    model = random_model("tf_efficientnet_b0")
    x = torch.randn(2, 3, *SIZE)
    with torch.inference_mode():
        expected = model(x)
        got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert (got - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnetv2_b1", "mobilenetv2_050"])
def test_gradients_and_statistics_are_timms(name, random_model, peer_model):
    """One training step's gradients, and the running statistics that it leaves behind."""
    ours = random_model(name, drop_rate=0.0, drop_path_rate=0.0).train()
    theirs = peer_model("timm", name).to_empty(device="cpu").train()
    theirs.load_state_dict(convert_state_dict(ours.state_dict(), to="timm"))
    x, target = torch.randn(4, 3, 64, 64), torch.tensor([1, 20, 300, 999])
    for model in (ours, theirs):
        torch.nn.functional.cross_entropy(model(x), target).backward()

    named = convert_state_dict({**ours.state_dict(), **dict(ours.named_parameters())}, to="timm")
    for name, parameter in theirs.named_parameters():
        grad, expected = named[name].grad, parameter.grad
        assert (grad - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-7, name
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(named[name], buffer, rtol=1e-4, atol=1e-5)
