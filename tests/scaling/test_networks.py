"""Networks of any phi: EfficientNet, MobileNetV2 and ResNet-50, against their libraries."""

from __future__ import annotations

import builtins

import pytest
import torch
import torchvision

from effnet_fast.models import EfficientNet, model_config
from effnet_fast.models.config import MBConvConfig
from effnet_fast.scaling import compound, model_for, network_stride, scaled_model_config, scaled_resnet50
from effnet_fast.scaling.resnet import _resnet_class


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("efficientnet", "efficientnet_b0"),
        ("efficientnet_lite", "efficientnet_lite0"),
        ("efficientnetv2", "efficientnetv2_b0"),
        ("mobilenetv2", "mobilenetv2_100"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "tf_"])
def test_phi_zero_is_the_published_base(base, name, prefix):
    if prefix + name == "tf_mobilenetv2_100":
        return  # no such model
    scaled = scaled_model_config(0, base=base, tensorflow=bool(prefix), name=prefix + name)
    assert scaled == model_config(prefix + name)


def test_a_width_multiplier_is_a_compound_of_its_own():
    """MobileNetV2 1.4 has beta ** phi = 1.4 and nothing else."""
    scaled = scaled_model_config(1, base="mobilenetv2", alpha=1.0, beta=1.4, gamma=1.0, dropout=0.2, name="x")
    published = model_config("mobilenetv2_140")
    assert scaled.stages == published.stages
    assert scaled.head_channels == published.head_channels
    assert scaled.resolution == published.resolution


def test_a_model_of_any_phi_runs():
    model = model_for(-5.5, num_classes=5)
    assert isinstance(model, EfficientNet)
    assert model.config.name == "efficientnet_phi-5.5"
    assert model.config.resolution == compound(-5.5).resolution
    side = model.config.resolution
    assert model.eval()(torch.randn(2, 3, side, side)).shape == (2, 5)
    assert model.config.drop_rate == 0.2


def test_rows_of_ones_own_are_scaled():
    rows = (
        MBConvConfig(expand=1, kernel=3, stride=1, channels=16, layers=1),
        MBConvConfig(expand=4, kernel=5, stride=2, channels=40, layers=2),
    )
    config = scaled_model_config(2, base_stages=rows, base_resolution=16, alpha=1.5, beta=1.4, gamma=1.5)
    assert [(row.channels, row.layers) for row in config.stages] == [(32, 3), (80, 5)]
    assert config.resolution == 36
    assert network_stride(config) == 4
    with pytest.raises(ValueError, match="phi must be from -3.42"):
        scaled_model_config(-4, base_stages=rows, base_resolution=16, gamma=1.5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="base must be one of efficientnet, .*got 'resnet'"):
        scaled_model_config(1, base="resnet")
    with pytest.raises(TypeError, match="width is no argument of compound scaling: use alpha"):
        scaled_model_config(1, width=2)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        scaled_model_config(1, num_classes=0)


def test_resnet_of_phi_zero_is_torchvisions():
    with torch.device("meta"):
        theirs = torchvision.models.resnet50()
    ours, resolution = scaled_resnet50(0)
    assert resolution == 224
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    torch.manual_seed(0)
    trained = torchvision.models.resnet50().eval()
    ours.load_state_dict(trained.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), trained(images))


def bottleneck_parameters(layers, width, classes) -> int:
    """Parameters of a ResNet of bottlenecks, by its definition: 1x1, 3x3, 1x1 to four times the width."""
    stem = width(64)
    total = 3 * 49 * stem + 2 * stem
    channels = stem
    for planes, count in zip((64, 128, 256, 512), layers, strict=True):
        inner, outer = width(planes), 4 * width(planes)
        for index in range(count):
            total += channels * inner + 9 * inner * inner + inner * outer + 2 * (2 * inner + outer)
            if index == 0:
                total += channels * outer + 2 * outer  # shortcut
            channels = outer
    return total + channels * classes + classes


@pytest.mark.parametrize(
    ("phi", "layers", "widths", "resolution"),
    [
        (-3, (2, 3, 4, 2), (48, 96, 192, 384), 148),
        (1, (4, 5, 8, 4), (72, 144, 280, 560), 256),
        (2, (5, 6, 9, 5), (80, 152, 312, 616), 296),
    ],
)
def test_resnet_is_scaled_along_three_axes(phi, layers, widths, resolution):
    """Layers rounded up, widths to multiples of 8: worked out by hand from 1.2^phi and 1.1^phi."""
    with torch.device("meta"):
        model, side = scaled_resnet50(phi, num_classes=10)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    assert side == resolution
    assert tuple(len(stage) for stage in stages) == layers
    assert tuple(stage[0].conv1.out_channels for stage in stages) == widths
    by_planes = dict(zip((64, 128, 256, 512), widths, strict=True))
    expected = bottleneck_parameters(layers, by_planes.__getitem__, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)


def test_a_scaled_resnet_trains():
    torch.manual_seed(0)
    model, _ = scaled_resnet50(-8, num_classes=3)
    loss = model(torch.randn(2, 3, 64, 64)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bad_resnets_are_named(monkeypatch):
    with pytest.raises(ValueError, match="phi must be"):
        scaled_resnet50(99)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        scaled_resnet50(0, num_classes=0)
    real = builtins.__import__

    def without_torchvision(name, *arguments, **more):
        if name.startswith("torchvision"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    _resnet_class.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_torchvision)
    with pytest.raises(ImportError, match="scaled_resnet50 needs torchvision: pip install torchvision"):
        scaled_resnet50(0)
