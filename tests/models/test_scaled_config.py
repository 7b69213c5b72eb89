"""scaled_config: any coefficients, against the libraries' own rounding, and every bad argument."""

from __future__ import annotations

import dataclasses

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision

from effnet_fast.models import Coefficients, EfficientNet, count_parameters, model_config, scaled_config
from effnet_fast.models.coefficients import COEFFICIENTS, LITE_COEFFICIENTS, V2_BASE_COEFFICIENTS
from effnet_fast.models.config import MBConvConfig
from effnet_fast.models.efficientnet import B0_STAGES

# Width and depth of no published network: rounding up and down, below 1 and above.
MULTIPLIERS = [(0.6, 0.7), (0.87, 1.0), (1.15, 1.21), (1.31, 1.9), (1.46, 2.07), (2.37, 1.3)]


def coefficients(width=1.0, depth=1.0, resolution=224, dropout=0.2) -> Coefficients:
    return Coefficients(width, depth, resolution, dropout)


def parameters(build) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def test_published_coefficients_give_the_published_networks():
    for variant, published in COEFFICIENTS.items():
        name = f"efficientnet_{variant}"
        assert scaled_config(name, published) == model_config(name)
        assert scaled_config(f"tf_{name}", published, tensorflow=True) == model_config(f"tf_{name}")
    for variant, published in LITE_COEFFICIENTS.items():
        name = f"efficientnet_{variant}"
        assert scaled_config(name, published, base="efficientnet_lite") == model_config(name)
    for variant, published in V2_BASE_COEFFICIENTS.items():
        name = f"efficientnetv2_{variant}"
        assert scaled_config(name, published, base="efficientnetv2") == model_config(name)


@pytest.mark.parametrize(("width", "depth"), MULTIPLIERS)
def test_any_efficientnet_has_efficientnet_pytorchs_parameters(width, depth):
    config = scaled_config("any", coefficients(width, depth))
    theirs = parameters(
        lambda: efficientnet_pytorch.EfficientNet.from_name(
            "efficientnet-b0", width_coefficient=width, depth_coefficient=depth
        )
    )
    assert count_parameters(config) == theirs


@pytest.mark.parametrize(("width", "depth"), MULTIPLIERS)
def test_any_v2_has_timms_parameters(width, depth):
    config = scaled_config("any", coefficients(width, depth), base="efficientnetv2")
    theirs = parameters(
        lambda: timm.create_model("tf_efficientnetv2_b0", channel_multiplier=width, depth_multiplier=depth)
    )
    assert count_parameters(config) == theirs


@pytest.mark.parametrize("width", [0.2, *(width for width, _ in MULTIPLIERS)])
def test_any_mobilenetv2_has_torchvisions_parameters(width):
    config = scaled_config("any", coefficients(width), base="mobilenetv2")
    assert count_parameters(config) == parameters(lambda: torchvision.models.mobilenet_v2(width_mult=width))


def test_own_rows_are_scaled():
    rows = (
        MBConvConfig(expand=1, kernel=3, stride=1, channels=16, layers=1, kind="conv"),
        MBConvConfig(expand=3, kernel=7, stride=2, channels=24, layers=2, kind="fused"),
        MBConvConfig(expand=4, kernel=5, stride=2, channels=40, layers=1),
    )
    config = scaled_config("own", coefficients(2.0, 1.5, 96, 0.0), base_stages=rows)
    assert [(row.channels, row.layers) for row in config.stages] == [(32, 2), (48, 3), (80, 2)]
    assert [row.kind for row in config.stages] == ["conv", "fused", "mbconv"]
    assert (config.name, config.resolution, config.drop_rate) == ("own", 96, 0.0)
    model = EfficientNet(dataclasses.replace(config, num_classes=5)).eval()
    assert model(torch.randn(2, 3, 33, 20)).shape == (2, 5)
    assert count_parameters(model) == sum(parameter.numel() for parameter in model.parameters())
    assert scaled_config("efficientnet_b0", coefficients(), base_stages=B0_STAGES) == model_config(
        "efficientnet_b0"
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"width": 0.0}, ValueError, r"coefficients\.width must be positive and finite, got 0\.0"),
        ({"depth": -1}, ValueError, r"coefficients\.depth must be positive and finite, got -1"),
        ({"width": float("nan")}, ValueError, r"coefficients\.width must be positive and finite, got nan"),
        ({"depth": float("inf")}, ValueError, r"coefficients\.depth must be positive and finite, got inf"),
        ({"width": "1"}, TypeError, r"coefficients\.width must be a number, got str"),
        ({"resolution": 0}, ValueError, r"coefficients\.resolution must be at least 1, got 0"),
        ({"resolution": 224.5}, TypeError, r"coefficients\.resolution must be an integer, got float"),
        ({"dropout": 1.0}, ValueError, r"drop_rate must be at least 0 and less than 1, got 1\.0"),
    ],
)
def test_bad_coefficients_are_named(given, error, message):
    with pytest.raises(error, match=message):
        scaled_config("bad", coefficients(**given))


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="coefficients must be Coefficients, got tuple"):
        scaled_config("bad", (1.0, 1.0, 224, 0.2))
    with pytest.raises(ValueError, match=r"base must be one of efficientnet, .*got 'resnet'"):
        scaled_config("bad", coefficients(), base="resnet")
    with pytest.raises(ValueError, match="stages must have at least one row"):
        scaled_config("bad", coefficients(), base_stages=())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kernel": 4}, "kernel must be odd, got 4"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"channels": -8}, "channels must be at least 1, got -8"),
        ({"expand": 0}, "expand must be at least 1, got 0"),
        ({"kind": "dense"}, "kind must be one of mbconv, fused, conv, got 'dense'"),
        ({"kind": "conv"}, 'expand must be 1 in a stage of kind "conv", got 6'),
        ({"kind": "fused", "expand": 1}, 'expand must be at least 2 in a stage of kind "fused", got 1'),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        MBConvConfig(**{"expand": 6, "kernel": 3, "stride": 1, "channels": 16, "layers": 1, **row})
