"""How many models of timm, torchvision and efficientnet_pytorch we read whole: every convolution of them."""

from __future__ import annotations

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision
from torch import nn

from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.readers import CHAINS, DECLINED, READERS
from effnet_fast.fusion.spec import Unsupported

TIMM_MODULES = ("efficientnet", "mobilenetv3", "hardcorenas")
# What a part of the name says about a timm model that is not read whole: words of a reason.
EXCEPTIONS = {
    "_gn": "GroupNormAct is no batch norm",
    "_ln": "LayerNormAct2d is no batch norm",
    "efficientnet_evos": "EvoNorm2dS0 is no batch norm",
    "_g16_evos": "2 groups of 16 channels",
    "_cc_": "CondConv",
    "gc_": "its attention is a GlobalContext",
    "mixnet": "MixedConv2d is no plain convolution",
    "efficientnet_x_": "space-to-depth",
    "efficientnet_h_": "space-to-depth",
    "edgetpu_v2": "groups of",
    "_blur_": "its anti-aliasing filter is a BlurPool2d",
    "_aa_": "its anti-aliasing filter is a AvgPool2d",
    "hybrid_medium": "attention",
    "hybrid_large": "no kernel for the activation GELU",
}
# One of each family and of each exception.
SUBSET = (
    *("tf_efficientnet_b0", "efficientnet_lite0", "tf_efficientnetv2_b0", "efficientnet_es", "tinynet_e"),
    *(
        "mobilenetv2_035",
        "mobilenetv3_small_050",
        "mobilenetv4_conv_small_035",
        "fbnetc_100",
        "semnasnet_075",
    ),
    *(
        "lcnet_035",
        "hardcorenas_a",
        "spnasnet_100",
        "test_efficientnet_gn",
        "efficientnet_blur_b0",
        "mixnet_s",
    ),
)


def census(model: nn.Module) -> tuple[int, dict[str, str]]:
    """Number of blocks read, and the reasons of what is not: name of a module -> reason."""
    blocks, refused = 0, {}
    covered: set[nn.Module] = set()

    def walk(path: str, module: nn.Module) -> None:
        nonlocal blocks
        name = class_name(module)
        if name in DECLINED:
            refused[path] = DECLINED[name]
            return
        if name in READERS:
            try:
                READERS[name](module)
            except Unsupported as error:
                refused[path] = str(error)
            else:
                blocks += 1
                covered.update(module.modules())
            return
        if name in CHAINS:
            chains = CHAINS[name](module)
            covered.update(chain.conv.conv for chain in chains.found)
            refused.update(chains.refused)
        for child_name, child in module.named_children():
            walk(f"{path}.{child_name}", child)

    walk("", model)
    left = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module not in covered
    ]
    if not refused:
        refused.update(dict.fromkeys(left, "a convolution that nobody reads"))
    return blocks, refused


def _is_universal(model: nn.Module) -> bool:
    return any(type(module).__name__ == "UniversalInvertedResidual" for module in model.modules())


def _check_timm(name: str) -> tuple[bool, bool]:
    """Whether the model is read whole, and whether it has universal inverted residuals."""
    model = timm.create_model(name, device="meta")
    blocks, refused = census(model)
    words = [words for part, words in EXCEPTIONS.items() if part in name]
    if not words:
        assert not refused, name
        assert blocks > 0, name
    for word in words:
        assert any(word in reason for reason in refused.values()), (name, refused)
    return not refused, _is_universal(model)


@pytest.mark.parametrize("name", SUBSET)
def test_timm_models_are_read_whole(name) -> None:
    _check_timm(name)


@pytest.mark.slow
def test_all_timm_models_but_the_known_exceptions_are_read_whole() -> None:
    names = [name for module in TIMM_MODULES for name in timm.list_models(module=module)]
    found = {name: _check_timm(name) for name in names}
    whole = [name for name, (is_whole, _) in found.items() if is_whole]
    universal = {name for name in whole if found[name][1]}
    assert len(whole) - len(universal) >= 111
    assert universal >= {
        f"mobilenetv4_conv_{size}" for size in ("small_035", "small_050", "small", "medium", "large")
    }


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if name.startswith(("efficientnet_", "mobilenet_v", "mnasnet"))
    ],
)
def test_torchvision_models_are_read_whole(name) -> None:
    with torch.device("meta"):
        blocks, refused = census(torchvision.models.get_model(name))
    assert refused == {}
    assert blocks >= 13


@pytest.mark.parametrize("image_size", [224, None])
def test_efficientnet_pytorch_is_read_whole(image_size) -> None:
    with torch.device("meta"):
        model = efficientnet_pytorch.EfficientNet.from_name("efficientnet-b0", image_size=image_size)
    assert census(model) == (16, {})


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_b0", "mobilenetv3_small_050", "mobilenetv4_conv_small_035"]
)
def test_backbones_are_read_whole(name) -> None:
    model = timm.create_model(name, device="meta", features_only=True)
    assert census(model)[1] == {}
