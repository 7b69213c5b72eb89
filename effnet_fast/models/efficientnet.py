"""EfficientNet (Tan and Le, 2019, https://arxiv.org/abs/1905.11946) and EfficientNet-Lite."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from effnet_fast.models.config import BlockConfig, EfficientNetConfig, MBConvConfig, Preprocessing
from effnet_fast.models.scaling import (
    COEFFICIENTS,
    LITE_COEFFICIENTS,
    Coefficients,
    round_channels,
    round_layers,
)
from effnet_fast.nn import ConvNormAct, DepthwiseSeparable, MBConv

__all__ = ["CONFIGS", "EfficientNet"]

# Table 1 of the paper. The comment is the stage's input size in B0.
STEM_CHANNELS = 32
B0_STAGES = (
    MBConvConfig(expand=1, kernel=3, stride=1, channels=16, layers=1),  #  112 x 112
    MBConvConfig(expand=6, kernel=3, stride=2, channels=24, layers=2),  #  112 x 112
    MBConvConfig(expand=6, kernel=5, stride=2, channels=40, layers=2),  #   56 x 56
    MBConvConfig(expand=6, kernel=3, stride=2, channels=80, layers=3),  #   28 x 28
    MBConvConfig(expand=6, kernel=5, stride=1, channels=112, layers=3),  #  14 x 14
    MBConvConfig(expand=6, kernel=5, stride=2, channels=192, layers=4),  #  14 x 14
    MBConvConfig(expand=6, kernel=3, stride=1, channels=320, layers=1),  #   7 x 7
)
HEAD_CHANNELS = 1280
SQUEEZE_RATIO = 0.25
DROP_PATH_RATE = 0.2  # every variant: "survival probability 0.8"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_PADDING = 32  # TensorFlow evaluates the central size / (size + 32) of an image, for every resolution


def _scaled(coefficients: Coefficients) -> dict:
    """Every width and depth of the network multiplied and rounded."""
    return {
        "stem_channels": round_channels(STEM_CHANNELS, coefficients.width),
        "stages": tuple(
            replace(
                row,
                channels=round_channels(row.channels, coefficients.width),
                layers=round_layers(row.layers, coefficients.depth),
            )
            for row in B0_STAGES
        ),
        "head_channels": round_channels(HEAD_CHANNELS, coefficients.width),
    }


def _scaled_lite(coefficients: Coefficients) -> dict:
    """Lite's scaling: stem and head keep B0's width, the first and the last stage B0's depth."""
    scaled = _scaled(coefficients)
    first, *middle, last = scaled["stages"]
    stages = (
        replace(first, layers=B0_STAGES[0].layers),
        *middle,
        replace(last, layers=B0_STAGES[-1].layers),
    )
    return {"stem_channels": STEM_CHANNELS, "stages": stages, "head_channels": HEAD_CHANNELS}


def _preprocessing(size: int, *, lite: bool, tensorflow: bool) -> Preprocessing:
    """Published evaluation: central size / (size + 32), ImageNet's mean and standard deviation, bicubic.

    It belongs to the architecture, not to a checkpoint: weights that were trained for another size or
    normalisation (timm's own B1..B5, AdvProp's) need their own, assigned to `model.preprocessing`.

    TensorFlow's Lite weights were trained on (pixel - 127) / 128, hence 127/255 and 128/255 (timm
    approximates them by 0.5), and on bilinear resizing. At 224..260 pixels PIL's bicubic is closer than its
    bilinear to TensorFlow's bilinear, which does not widen its filter when it shrinks an image; so Lite0..2
    use bicubic, as timm does.
    """
    tf_lite = lite and tensorflow
    return Preprocessing(
        size=size,
        crop=size / (size + CROP_PADDING),
        interpolation="bilinear" if tf_lite and size >= 280 else "bicubic",
        mean=(127 / 255,) * 3 if tf_lite else IMAGENET_MEAN,
        std=(128 / 255,) * 3 if tf_lite else IMAGENET_STD,
    )


def _config(variant: str, coefficients: Coefficients, *, lite: bool, tensorflow: bool) -> EfficientNetConfig:
    """`tensorflow`: SAME padding and batch norm as published (eps 1e-3, momentum 1 - 0.99).

    Without it, symmetric padding and PyTorch's own batch norm (eps 1e-5, momentum 0.1), with which timm's
    `efficientnet_*` and torchvision's B0..B4 weights were trained.
    """
    return EfficientNetConfig(
        name=f"{'tf_' if tensorflow else ''}efficientnet_{variant}",
        **(_scaled_lite if lite else _scaled)(coefficients),
        squeeze_ratio=None if lite else SQUEEZE_RATIO,
        activation="relu6" if lite else "silu",
        padding="same" if tensorflow else "symmetric",
        norm_eps=1e-3 if tensorflow else 1e-5,
        norm_momentum=0.01 if tensorflow else 0.1,
        drop_rate=coefficients.dropout,
        drop_path_rate=DROP_PATH_RATE,
        preprocessing=_preprocessing(coefficients.resolution, lite=lite, tensorflow=tensorflow),
    )


CONFIGS: dict[str, EfficientNetConfig] = {
    config.name: config
    for tensorflow in (False, True)
    for table, lite in ((COEFFICIENTS, False), (LITE_COEFFICIENTS, True))
    for variant, coefficients in table.items()
    for config in [_config(variant, coefficients, lite=lite, tensorflow=tensorflow)]
}


class EfficientNet(nn.Module):
    """stem -> stages of MBConv blocks -> 1x1 head -> global mean -> dropout -> classifier.

    Trainable, on stock PyTorch operators. New weights are drawn as published: convolutions normal with
    variance 2 / fan-out (k * k * out_channels / groups), the classifier uniform in +-1 / sqrt(num_classes),
    biases zero.

    Args:
        config: see `EfficientNetConfig`; `create_model` makes one from a name.

    Attributes:
        config: as given.
        preprocessing: how its images are prepared; assign another for weights that want one (AdvProp's use
            mean = std = 0.5).
        stem, stages, head, dropout, classifier: the modules, in order of use.

    Shape: float [N, in_chans, H, W], normalised -> [N, num_classes] logits, any H and W.
    """

    def __init__(self, config: EfficientNetConfig):
        super().__init__()
        if not isinstance(config, EfficientNetConfig):
            raise TypeError(f"config must be an EfficientNetConfig, got {type(config).__name__}")
        self.config = config
        self.preprocessing = config.preprocessing

        options = {
            "activation": config.activation,
            "padding": config.padding,
            "norm_eps": config.norm_eps,
            "norm_momentum": config.norm_momentum,
        }
        self.stem = ConvNormAct(config.in_chans, config.stem_channels, 3, stride=2, **options)
        stages: list[list[nn.Module]] = [[] for _ in config.stages]
        for block in config.blocks():
            stages[block.stage].append(_make_block(block, options))
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.head = ConvNormAct(config.stages[-1].channels, config.head_channels, 1, **options)
        self.dropout = nn.Dropout(config.drop_rate)
        self.classifier = nn.Linear(config.head_channels, config.num_classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights from the published distributions and reset the batch norm statistics."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                limit = 1.0 / math.sqrt(module.out_features)
                module.weight.uniform_(-limit, limit)
                module.bias.zero_()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_chans, H, W] -> the head's map [N, head_channels, ceil(H / 32), ceil(W / 32)]."""
        return self.head(self.stages(self.stem(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.forward_features(x).mean((2, 3))
        return self.classifier(self.dropout(pooled))


def _make_block(block: BlockConfig, options: dict) -> nn.Module:
    options = {
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "squeeze_channels": block.squeeze_channels,
        "drop_path_rate": block.drop_path_rate,
        **options,
    }
    if not block.expands:
        return DepthwiseSeparable(block.in_channels, block.out_channels, **options)
    return MBConv(block.in_channels, block.out_channels, expanded_channels=block.expanded_channels, **options)
