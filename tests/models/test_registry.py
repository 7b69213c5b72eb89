"""create_model, list_models, preprocessing, and every bad argument."""

from __future__ import annotations

import inspect

import pytest
import timm
import torch

import effnet_fast
from effnet_fast.models import EfficientNet, create_model, list_models, model_config
from effnet_fast.models.families import B0_STAGES
from effnet_fast.scaling import scaled_model_config

VARIANTS = [
    *(f"efficientnet_b{index}" for index in range(9)),
    "efficientnet_l2",
    *(f"efficientnet_lite{index}" for index in range(5)),
    *(f"efficientnetv2_b{index}" for index in range(4)),
    *(f"efficientnetv2_{size}" for size in ("s", "m", "l", "xl")),
]
MOBILENETV2 = [f"mobilenetv2_{width}" for width in ("035", "050", "075", "100", "140", "110d", "120d")]


def test_list_models_has_the_family():
    assert list_models() == [*VARIANTS, *(f"tf_{name}" for name in VARIANTS), *MOBILENETV2]
    assert set(list_models()) - set(timm.list_models()) == set(list_models("efficientnetv2_b*"))
    assert list_models("efficientnet_b[0-2]") == ["efficientnet_b0", "efficientnet_b1", "efficientnet_b2"]
    assert list_models("tf_*lite*") == [f"tf_efficientnet_lite{index}" for index in range(5)]
    assert list_models("resnet*") == []


def test_public_names():
    assert effnet_fast.create_model is create_model
    assert effnet_fast.list_models is list_models
    parameters = inspect.signature(create_model).parameters
    assert list(parameters) == [
        "name", "phi", "num_classes", "in_chans", "weights", "padding", "drop_rate", "drop_path_rate",
    ]  # fmt: skip
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "name")


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 3, "in_chans": 1}, {"padding": "same"}])
def test_create_model_gives_a_trainable_model(arguments):
    model = create_model("efficientnet_b0", **arguments)
    assert isinstance(model, EfficientNet)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    logits = model(torch.randn(2, arguments.get("in_chans", 3), 33, 40))
    assert logits.shape == (2, arguments.get("num_classes", 1000))
    assert model.eval()(torch.randn(0, arguments.get("in_chans", 3), 32, 32)).shape[0] == 0


def test_explicit_padding_overrides_the_names():
    assert create_model("tf_efficientnet_b0", padding="symmetric").stem.padding_for(224, 224) == (1, 1, 1, 1)
    assert create_model("efficientnet_b0", padding="same").stem.padding_for(224, 224) == (0, 0, 1, 1)


@pytest.mark.parametrize("name", list_models("*efficientnet_b*"))
def test_preprocessing_is_timms_for_tensorflows_weights(name):
    ours = model_config(name).preprocessing
    theirs = timm.get_pretrained_cfg(f"tf_{name.removeprefix('tf_')}")
    assert ours.size == theirs.input_size[-1]
    assert ours.crop == pytest.approx(theirs.crop_pct, abs=1e-3)
    assert ours.resize == ours.size + 32
    assert ours.interpolation == theirs.interpolation == "bicubic"
    assert (ours.mean, ours.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [
        *((name, name) for name in ("efficientnet_l2", *MOBILENETV2)),
        *((f"efficientnetv2_{size}", f"efficientnetv2_{size}") for size in ("s", "l", "xl")),
        *((f"tf_efficientnetv2_{size}", f"tf_efficientnetv2_{size}.in1k") for size in ("s", "m", "l")),
        ("tf_efficientnetv2_xl", "tf_efficientnetv2_xl.in21k_ft_in1k"),
        *((f"tf_efficientnetv2_b{index}", f"tf_efficientnetv2_b{index}.in1k") for index in range(4)),
        *((f"efficientnetv2_b{index}", f"tf_efficientnetv2_b{index}.in1k") for index in range(4)),
    ],
)
def test_preprocessing_of_the_others_is_timms_evaluation(name, timm_name):
    """V2's sizes are those of the test; its training began smaller."""
    ours = model_config(name).preprocessing
    theirs = timm.get_pretrained_cfg(timm_name)
    assert ours.size == (theirs.test_input_size or theirs.input_size)[-1]
    assert ours.crop == pytest.approx(theirs.crop_pct, abs=1e-3)
    assert ours.interpolation == theirs.interpolation
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)


@pytest.mark.parametrize("index", range(5))
def test_lite_preprocessing(index):
    tensorflow = model_config(f"tf_efficientnet_lite{index}").preprocessing
    plain = model_config(f"efficientnet_lite{index}").preprocessing
    theirs = timm.get_pretrained_cfg(f"tf_efficientnet_lite{index}")
    assert tensorflow.size == plain.size == (224, 240, 260, 280, 300)[index]
    assert tensorflow.interpolation == theirs.interpolation
    # (pixel - 127) / 128 for pixels of 0..255
    assert [
        (value / 255 - tensorflow.mean[0]) / tensorflow.std[0] for value in (0, 127, 255)
    ] == pytest.approx([-127 / 128, 0, 1])
    assert plain.mean == (0.485, 0.456, 0.406)


def test_preprocessing_has_one_number_for_each_channel():
    model = create_model("efficientnet_b0", in_chans=5)
    assert model.preprocessing.mean == pytest.approx((0.449,) * 5)
    assert len(model.preprocessing.std) == 5


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("efficientnet-b0", "did you mean efficientnet_b0"),
        ("EfficientNet_B7", "efficientnet_b7"),
        ("efficientnet_b9", "efficientnet_b"),
        ("tf_efficientnet_light0", "tf_efficientnet_lite0"),
        ("efficientnet_v2_s", "efficientnetv2_s"),
        ("mobilenet_v2_100", "mobilenetv2_100"),
        ("resnet50", r"see list_models\(\)"),
    ],
)
def test_unknown_name_suggests_close_ones(name, suggestion):
    with pytest.raises(ValueError, match=f"name must be a registered model, got '{name}'.*{suggestion}"):
        create_model(name)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"num_classes": -5}, ValueError, "num_classes must be at least 1, got -5"),
        ({"num_classes": 10.0}, TypeError, "num_classes must be an integer, got float"),
        ({"num_classes": True}, TypeError, "num_classes must be an integer, got bool"),
        ({"in_chans": 0}, ValueError, "in_chans must be at least 1, got 0"),
        ({"in_chans": "3"}, TypeError, "in_chans must be an integer, got str"),
        ({"padding": "valid"}, ValueError, r"padding must be one of \('symmetric', 'same'\), got 'valid'"),
        ({"padding": 1}, TypeError, "padding must be a string, .* got int"),
        ({"drop_rate": 1.0}, ValueError, "drop_rate must be at least 0 and less than 1, got 1.0"),
        ({"drop_rate": -0.1}, ValueError, "drop_rate must be at least 0 and less than 1, got -0.1"),
        ({"drop_path_rate": 2}, ValueError, "drop_path_rate must be at least 0 and less than 1, got 2"),
        ({"drop_path_rate": "0.2"}, TypeError, "drop_path_rate must be a number, got str"),
        ({"weights": 3}, TypeError, "weights must be a path or a state dict, got int"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        create_model("efficientnet_b0", **arguments)


def test_name_must_be_a_string():
    with pytest.raises(TypeError, match="name must be a string, got int"):
        create_model(0)


def test_any_phi_of_a_base():
    with torch.device("meta"):
        model = create_model("efficientnet", phi=2.5, num_classes=7)
        same = create_model("tf_efficientnet", phi=2.5)
    # 2.5: depth x 1.2^2.5 = 1.58, width x 1.1^2.5 = 1.27, 224 x 1.15^2.5 = 317.7 pixels, to a multiple of 4.
    assert model.config.resolution == 316
    assert model_config(model.config.name, num_classes=7) == model.config
    assert model_config(same.config.name) == same.config
    stage = model.config.stages[2]
    assert (stage.layers, stage.channels) == (4, 48)  # 2 x 1.58 and 40 x 1.27 = 50.8, rounded
    assert model.classifier.out_features == 7
    assert (same.config.padding, same.config.stages) == ("same", model.config.stages)


@pytest.mark.parametrize("phi", [2, -0.125, 2.123456789, 1e-05, 1 / 3])
def test_the_name_of_a_phi_makes_the_same_network(phi):
    config = model_config("tf_efficientnet", phi=phi)
    assert model_config(config.name) == config


@pytest.mark.parametrize(
    "other", [{"gamma": 1.1}, {"base_resolution": 192}, {"dropout": 0.0}, {"base_stages": B0_STAGES}]
)
def test_a_name_with_a_phi_alone_is_the_papers_formula(other):
    """Other coefficients are in the name, so that no one takes the network for the paper's."""
    name = scaled_model_config(7, **other).name
    assert name.startswith("efficientnet_phi7_")
    with pytest.raises(ValueError, match="name must be a registered model"):
        model_config(name)


@pytest.mark.parametrize(
    ("name", "phi", "message"),
    [
        ("efficientnet", None, "'efficientnet' needs a phi, such as phi=2.5"),
        ("efficientnet_b0", 1.0, "phi goes with the name of a base, efficientnet, .* not with the network"),
        ("efficientnet", float("nan"), "phi must be a finite number, got nan"),
        ("efficientnet", 99, "phi must be from -13.92 to 22.81"),
    ],
)
def test_phi_that_makes_no_network(name, phi, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, phi=phi)
