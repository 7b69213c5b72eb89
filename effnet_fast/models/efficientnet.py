"""The network of the whole family: EfficientNet, EfficientNet-Lite, EfficientNetV2 and MobileNetV2."""

from __future__ import annotations

import math

import torch
from torch import nn

from effnet_fast.models.config import BlockConfig, EfficientNetConfig
from effnet_fast.models.families import B0_STAGES
from effnet_fast.models.presets import CONFIGS, IMAGENET_MEAN, IMAGENET_STD, scaled_config
from effnet_fast.nn import ConvBlock, ConvNormAct, DepthwiseSeparable, FusedMBConv, MBConv

__all__ = ["B0_STAGES", "CONFIGS", "IMAGENET_MEAN", "IMAGENET_STD", "EfficientNet", "scaled_config"]


class EfficientNet(nn.Module):
    """stem -> stages of blocks -> 1x1 head -> global mean -> dropout -> classifier.

    The blocks of a stage are of one kind: `MBConv` (`DepthwiseSeparable` where nothing expands),
    `FusedMBConv` or `ConvBlock`. EfficientNetV2 and MobileNetV2 are this network as well, with other rows.

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
        "drop_path_rate": block.drop_path_rate,
        **options,
    }
    widths = (block.in_channels, block.out_channels)
    if block.kind == "conv":
        return ConvBlock(*widths, **options)
    if block.kind == "fused":
        return FusedMBConv(*widths, expanded_channels=block.expanded_channels, **options)
    options["squeeze_channels"] = block.squeeze_channels
    if not block.expands:
        return DepthwiseSeparable(*widths, **options)
    return MBConv(*widths, expanded_channels=block.expanded_channels, **options)
