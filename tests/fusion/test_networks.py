"""Fused networks as parts of larger ones: backbones, encoders, detectors; and all methods for features."""

from __future__ import annotations

import copy

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from effnet_fast.fusion import fuse
from effnet_fast.fusion.fuse import find
from tests.fusion.networks import build, close, counted_programs, randomise


def flat(values) -> list[Tensor]:
    """All tensors in what a network gives."""
    if isinstance(values, Tensor):
        return [values]
    return [
        tensor for each in (values.values() if isinstance(values, dict) else values) for tensor in flat(each)
    ]


def agree(model: nn.Module, fused: nn.Module, *given, call=lambda model, *given: model(*given)) -> int:
    """Compare what `call` gives; how many programs ran."""
    with torch.no_grad():
        expected = flat(call(model, *given))
        with counted_programs() as ran:
            results = flat(call(fused, *given))
    assert len(results) == len(expected)
    for result, truth in zip(results, expected, strict=True):
        assert close(result, truth)
    return len(ran)


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 64, 72)


@pytest.mark.parametrize(
    ("name", "location"),
    [
        ("efficientnet_b0", "bottleneck"),
        ("efficientnet_b0", "expansion"),
        ("tf_mobilenetv3_small_100", "bottleneck"),
        ("mobilenetv4_conv_small", "bottleneck"),
    ],
)
def test_timm_backbones(name, location, image) -> None:
    model = randomise(timm.create_model(name, features_only=True, feature_location=location))
    fused = fuse(model)
    programs = agree(model, fused, image)
    blocks = sum(found.fused for found in find(fused))
    # "expansion" hooks the convolution behind the expansion, so those blocks run as they are.
    assert programs == blocks if location == "bottleneck" else 0 < programs < blocks


def test_methods_of_timms_networks(model, fused, x) -> None:
    for call in (
        lambda model, x: model.forward_features(x),
        lambda model, x: model.forward_head(model.forward_features(x)),
        lambda model, x: model.forward_intermediates(x),
        lambda model, x: model.forward_intermediates(
            x, indices=[0, 2], intermediates_only=True, stop_early=True
        ),
        lambda model, x: model.forward_head(model.forward_features(x), pre_logits=True),
        lambda model, x: model.as_sequential()(x) if hasattr(model, "as_sequential") else model(x),
    ):
        assert agree(model, fused, x, call=call) >= 4


def test_a_pruned_and_reset_network(model, fused, x) -> None:
    for each in (model, fused):
        each.reset_classifier(0)
    agree(model, fused, x)
    for each in (model, fused):
        each.prune_intermediate_layers([0, 1], prune_norm=True)
    agree(model, fused, x)


def test_methods_of_efficientnet_pytorch(image) -> None:
    model = build(lambda: efficientnet_pytorch.EfficientNet.from_name("efficientnet-b0", num_classes=10))
    fused = fuse(model)
    assert agree(model, fused, image, call=lambda model, x: model.extract_features(x)) == 18
    assert agree(model, fused, image, call=lambda model, x: model.extract_endpoints(x)) == 18
    for each in (model, fused):
        each.set_swish(memory_efficient=False)
    # The blocks have another activation module now, which still is known.
    agree(model, fused, image)
    agree(model.eval(), fused.eval(), image)


class UNet(nn.Module):
    """A decoder on top of somebody's encoder, with a skip of every scale."""

    def __init__(self, encoder: nn.Module, channels: list[int]):
        super().__init__()
        self.encoder = encoder
        self.steps = nn.ModuleList(
            torchvision.ops.Conv2dNormActivation(above + below, below, activation_layer=nn.Hardswish)
            for above, below in zip(channels[::-1], channels[-2::-1], strict=False)
        )
        self.head = nn.Conv2d(channels[0], 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        *skips, x = self.encoder(image)
        for step, skip in zip(self.steps, skips[::-1], strict=True):
            x = step(torch.cat([nn.functional.interpolate(x, skip.shape[2:]), skip], 1))
        return self.head(x)


def test_u_net(image) -> None:
    encoder = timm.create_model("efficientnet_lite0", features_only=True)
    model = randomise(UNet(encoder, encoder.feature_info.channels()))
    fused = fuse(model)
    found = list(find(fused))
    assert agree(model, fused, image) == sum(each.fused for each in found) >= 17
    # The decoder's widest convolution is faster as it is, and the last is bare.
    assert [each.path for each in found if each.block is None] == ["steps.0", "head"]


def test_a_detectors_backbone_with_frozen_norms(image) -> None:
    backbone = mobilenet_backbone(
        backbone_name="mobilenet_v3_large", weights=None, fpn=True, norm_layer=FrozenBatchNorm2d
    )
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.7, 1.3), module.bias.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.1), module.running_var.uniform_(0.7, 1.4)
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3)
    model = randomise(FasterRCNN(backbone, 5, rpn_anchor_generator=anchors, min_size=64, max_size=96))
    fused = fuse(model)
    assert agree(model.backbone, fused.backbone, image) >= 17
    with torch.no_grad():
        found, expected = [each(list(image)) for each in (fused, model)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["boxes"].shape == theirs["boxes"].shape
        assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-4)


def test_dilated_blocks_stay(image) -> None:
    model = build(
        lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=4
        )
    )
    fused = fuse(model)
    left = {found.path: found.reason for found in find(fused) if found.block is None}
    assert [path for path, reason in left.items() if reason == "dilation"] == [
        f"backbone.{i}" for i in (13, 14, 15)
    ]
    assert agree(model, fused, image) >= 13


def test_torchvisions_feature_extractor(image) -> None:
    model = build(lambda: torchvision.models.mobilenet_v2(num_classes=10))
    nodes = {"features.3": "a", "features.18": "b"}
    expected = create_feature_extractor(model, nodes)
    # A graph is made of the innermost modules, so it is the graph that is fused, where it has whole blocks.
    agree(expected, create_feature_extractor(fuse(model), nodes), image)


def test_feature_pyramid_of_fused_features(model, image) -> None:
    class Detector(nn.Module):
        def __init__(self, backbone: EfficientNet):
            super().__init__()
            self.backbone = backbone
            self.pyramid = FeaturePyramidNetwork([16, 24, 32], 8)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = self.backbone.forward_intermediates(x, indices=[0, 1, 2], intermediates_only=True)
            return self.pyramid(dict(zip("abc", maps, strict=True)))

    detector = randomise(Detector(copy.deepcopy(model)))
    assert agree(detector, fuse(detector), image) >= 6
