"""Parameters and multiply-adds against the published figures, against hooks, and without running anything."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from effnet_fast.models import count_macs, count_parameters, create_model, layers, list_models, macs_by_kind
from effnet_fast.models import model_config as config

# Parameters (exact, as torchvision publishes them) and billions of multiply-adds at the published resolution.
PUBLISHED = {
    #                   parameters  total    depthwise pointwise squeeze-excite
    "efficientnet_b0": (5_288_548, 0.3858, 0.0345, 0.3385, 0.0006),
    "efficientnet_b1": (7_794_184, 0.6868, 0.0604, 0.6116, 0.0011),
    "efficientnet_b2": (9_109_994, 0.9936, 0.0798, 0.8964, 0.0013),
    "efficientnet_b3": (12_233_232, 1.8271, 0.1333, 1.6662, 0.0019),
    "efficientnet_b4": (19_341_616, 4.3938, 0.2991, 4.0429, 0.0031),
    "efficientnet_b5": (30_389_784, 10.2664, 0.6096, 9.5822, 0.0052),
    "efficientnet_b6": (43_040_704, 19.0676, 1.0518, 17.9006, 0.0075),
    "efficientnet_b7": (66_347_960, 37.7459, 1.8603, 35.7156, 0.0119),
    "efficientnet_b8": (87_413_142, 62.5975, 2.8764, 59.4829, 0.0159),
}
# Parameters, resolution, billions of multiply-adds.
PUBLISHED_V2 = {
    "efficientnetv2_b0": (7_139_704, 224, 0.718),
    "efficientnetv2_b1": (8_141_052, 240, 1.197),
    "efficientnetv2_b2": (10_096_086, 260, 1.698),
    "efficientnetv2_b3": (14_358_406, 300, 3.011),
    "efficientnetv2_s": (21_458_488, 384, 8.366),
    "efficientnetv2_m": (54_139_356, 480, 24.582),
    "efficientnetv2_l": (118_515_272, 480, 56.080),
    "efficientnetv2_xl": (208_119_808, 512, 93.353),
}
# EfficientNet-Lite: parameters, then billions of multiply-adds by resolution.
PUBLISHED_LITE = {
    "efficientnet_lite0": (4_652_008, {224: 0.385}),
    "efficientnet_lite1": (5_416_680, {240: 0.600}),
    "efficientnet_lite2": (6_092_072, {260: 0.860}),
    "efficientnet_lite3": (8_197_096, {280: 1.383, 300: 1.608}),
    "efficientnet_lite4": (13_006_568, {300: 2.553, 380: 3.944}),
}
# Table 2 of the paper ("FLOPS", two significant digits; our counts include every layer).
PAPER_BILLIONS = {"b0": 0.39, "b1": 0.70, "b2": 1.0, "b3": 1.8, "b4": 4.2, "b5": 9.9, "b6": 19, "b7": 37}


@pytest.mark.parametrize("prefix", ["", "tf_"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, prefix):
    parameters, total, depthwise, pointwise, squeeze_excite = PUBLISHED[name]
    model = config(prefix + name)
    assert count_parameters(model) == parameters
    assert round(count_macs(model) / 1e9, 4) == total
    parts = {kind: round(macs / 1e9, 4) for kind, macs in macs_by_kind(model).items()}
    assert (parts["depthwise"], parts["pointwise"], parts["squeeze_excite"]) == (
        depthwise,
        pointwise,
        squeeze_excite,
    )


@pytest.mark.parametrize("name", ["efficientnet_l2", "tf_efficientnet_l2"])
def test_l2_counts(name):
    model = config(name)
    assert count_parameters(model) == 480_309_308
    assert model.resolution == 800
    assert round(count_macs(model) / 1e9, 4) == 475.7037
    parts = {kind: macs / 1e9 for kind, macs in macs_by_kind(model).items()}
    assert round(parts["depthwise"], 3) == 11.389
    assert round(parts["pointwise"], 2) == 463.63
    assert round(parts["squeeze_excite"], 4) == 0.0914


@pytest.mark.parametrize("prefix", ["", "tf_"])
@pytest.mark.parametrize("name", PUBLISHED_LITE)
def test_lite_counts_are_the_published_ones(name, prefix):
    parameters, by_resolution = PUBLISHED_LITE[name]
    model = config(prefix + name)
    assert count_parameters(model) == parameters
    assert model.resolution == next(iter(by_resolution))
    for resolution, billions in by_resolution.items():
        assert round(count_macs(model, resolution) / 1e9, 3) == billions
    assert "squeeze_excite" not in macs_by_kind(model)


@pytest.mark.parametrize("prefix", ["", "tf_"])
@pytest.mark.parametrize("name", PUBLISHED_V2)
def test_v2_counts_are_the_published_ones(name, prefix):
    parameters, resolution, billions = PUBLISHED_V2[name]
    model = config(prefix + name)
    assert count_parameters(model) == parameters
    assert model.resolution == resolution
    assert round(count_macs(model) / 1e9, 3) == billions


@pytest.mark.parametrize(
    "name",
    [
        *list_models("efficientnet_b[0-7]"),
        *list_models("efficientnetv2_[sml]"),
        "mobilenetv2_100",
    ],
)
def test_counts_are_the_ones_that_torchvision_publishes(name):
    """Of its first weights, at their resolution."""
    theirs = {"mobilenetv2_100": "mobilenet_v2"}.get(name, name.replace("netv2", "net_v2"))
    weights = torchvision.models.get_model_weights(theirs).IMAGENET1K_V1
    assert count_parameters(config(name)) == weights.meta["num_params"]
    (resolution,) = weights.transforms().crop_size
    assert round(count_macs(config(name), resolution) / 1e9, 3) == weights.meta["_ops"]


@pytest.mark.parametrize("variant", PAPER_BILLIONS)
def test_macs_agree_with_the_papers_rounded_figures(variant):
    assert count_macs(config(f"efficientnet_{variant}")) / 1e9 == pytest.approx(
        PAPER_BILLIONS[variant], rel=0.05
    )


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in list_models() if not name.startswith("tf_")),
        *("tf_efficientnet_b0", "tf_efficientnet_b1", "tf_efficientnetv2_b1"),
    ],
)
def test_every_layer_is_the_one_that_runs(name):
    """Shapes and multiply-adds of every layer, seen by hooks during a real forward pass (on meta tensors)."""
    with torch.device("meta"):
        model = create_model(name).eval()
    seen = {}

    def record(layer_name):
        def hook(module, inputs, output):
            weight = module.weight
            positions = output.shape[2:].numel() if output.ndim == 4 else 1
            seen[layer_name] = (
                tuple(weight.shape),
                tuple(inputs[0].shape[2:]) or (1, 1),
                tuple(output.shape[2:]) or (1, 1),
                positions * weight.numel(),
            )

        return hook

    for layer_name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(record(layer_name))
    height, width = model.config.resolution, model.config.resolution - 25
    model(torch.empty(1, 3, height, width, device="meta"))

    expected = {}
    for layer in layers(model, (height, width)):
        shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel_size, layer.kernel_size)
        shape = shape[:2] if layer.kind == "classifier" else shape
        expected[layer.name] = (shape, layer.in_size, layer.out_size, layer.macs)
    assert list(seen) == list(expected), "same layers, in the same order"
    assert seen == expected
    assert count_macs(model, (height, width)) == sum(macs for *_, macs in seen.values())
    assert count_parameters(model) == sum(parameter.numel() for parameter in model.parameters())


def test_counts_follow_classes_and_input_channels():
    model = create_model("efficientnet_b0", num_classes=7, in_chans=1)
    assert count_parameters(model) == sum(parameter.numel() for parameter in model.parameters())
    full = config("efficientnet_b0")
    assert count_macs(full) - count_macs(model) == 1280 * 993 + 2 * 9 * 32 * 112 * 112


@pytest.mark.parametrize("resolution", [0, -3, (224,), (224, 0), 224.0, "224"])
def test_bad_resolution_is_named(resolution):
    with pytest.raises(ValueError, match="resolution must be a positive integer or a pair"):
        count_macs(config("efficientnet_b0"), resolution)


def test_bad_model_is_named():
    with pytest.raises(TypeError, match="model must be an EfficientNet or an EfficientNetConfig, got Linear"):
        count_macs(nn.Linear(2, 2))
