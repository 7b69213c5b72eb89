"""The two blocks of EfficientNetV2's early stages: a k x k convolution where MBConv has a depthwise one."""

from __future__ import annotations

import torch
from torch import nn

from effnet_fast.nn.conv import ConvNormAct
from effnet_fast.nn.drop_path import DropPath

__all__ = ["ConvBlock", "FusedMBConv"]


class FusedMBConv(nn.Module):
    """k x k expansion, linear 1x1 projection; no squeeze-excite.

    In plain PyTorch::

        plain = nn.Sequential(
            nn.Conv2d(C, M, k, stride, k // 2, bias=False), nn.BatchNorm2d(M), nn.SiLU(),   # expand
            nn.Conv2d(M, O, 1, bias=False), nn.BatchNorm2d(O),                              # project
        )
        y = plain(x) + x                                        # x where stride is 1 and O is C

    Args:
        in_channels, out_channels: channels.
        expanded_channels: channels between the two convolutions (EfficientNetV2: 4 * in_channels).
        kernel_size, stride: of the expansion.
        activation: of the expansion.
        padding, norm_eps, norm_momentum: as in `ConvNormAct`.
        drop_path_rate: probability of dropping the block's branch for an image in training.

    The input is added to the output iff stride is 1 and in_channels equals out_channels (`has_skip`).

    Shape: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)].
    Source: https://arxiv.org/abs/2104.00298, figure 2. timm calls it `EdgeResidual`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expanded_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        activation: str = "silu",
        padding: str = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        conv_options = {"padding": padding, "norm_eps": norm_eps, "norm_momentum": norm_momentum}
        self.has_skip = stride == 1 and in_channels == out_channels
        self.expand = ConvNormAct(
            in_channels, expanded_channels, kernel_size, stride, activation=activation, **conv_options
        )
        self.project = ConvNormAct(expanded_channels, out_channels, 1, activation="identity", **conv_options)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.expand(x))
        return self.drop_path(y) + x if self.has_skip else y


class ConvBlock(nn.Module):
    """One k x k convolution with batch norm and activation: FusedMBConv with expansion 1.

    In plain PyTorch::

        plain = nn.Sequential(
            nn.Conv2d(C, O, k, stride, k // 2, bias=False), nn.BatchNorm2d(O), nn.SiLU()
        )
        y = plain(x) + x                                        # x where stride is 1 and O is C

    Args:
        in_channels, out_channels: channels.
        kernel_size, stride, activation: of the convolution.
        padding, norm_eps, norm_momentum: as in `ConvNormAct`.
        drop_path_rate: probability of dropping the block's branch for an image in training.

    The input is added *after* the activation, iff stride is 1 and in_channels equals out_channels
    (`has_skip`): there is no linear projection that it could be added to.

    Shape: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)].
    Source: https://github.com/google/automl, `FusedMBConvBlock` with expand_ratio 1; timm calls it
    `ConvBnAct`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        activation: str = "silu",
        padding: str = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv = ConvNormAct(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            activation=activation,
            padding=padding,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.drop_path(y) + x if self.has_skip else y
