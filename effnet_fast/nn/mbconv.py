"""The two blocks of EfficientNet: MBConv (inverted bottleneck) and its form without expansion."""

from __future__ import annotations

import torch
from torch import nn

from effnet_fast.nn.conv import ConvNormAct
from effnet_fast.nn.drop_path import DropPath
from effnet_fast.nn.squeeze_excite import SqueezeExcite

__all__ = ["DepthwiseSeparable", "MBConv"]


class _DepthwiseBlock(nn.Module):
    """What both blocks share: depthwise convolution, squeeze-excite, projection, skip."""

    depthwise: ConvNormAct
    squeeze_excite: SqueezeExcite | None
    project: ConvNormAct

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_path_rate: float):
        super().__init__()
        self.has_skip = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path_rate)

    def _add_depthwise_and_project(
        self,
        channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        squeeze_channels: int | None,
        activation: str,
        gate: str,
        conv_options: dict,
    ) -> None:
        self.depthwise = ConvNormAct(
            channels, channels, kernel_size, stride, groups=channels, activation=activation, **conv_options
        )
        self.squeeze_excite = None
        if squeeze_channels is not None:
            self.squeeze_excite = SqueezeExcite(channels, squeeze_channels, activation=activation, gate=gate)
        self.project = ConvNormAct(channels, out_channels, 1, activation="identity", **conv_options)

    def _depthwise_and_project(self, x: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(x)
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(x)
        x = self.project(x)
        if self.has_skip:
            x = self.drop_path(x) + shortcut
        return x


class DepthwiseSeparable(_DepthwiseBlock):
    """MBConv1: depthwise convolution, squeeze-excite, linear projection; no expansion.

    In plain PyTorch::

        plain = nn.Sequential(
            nn.Conv2d(C, C, k, stride, k // 2, groups=C, bias=False), nn.BatchNorm2d(C), nn.SiLU(),
            SqueezeExcite(C, S),                                # squeeze_channels=S
            nn.Conv2d(C, O, 1, bias=False), nn.BatchNorm2d(O),  # project
        )
        y = plain(x) + x                                        # x where stride is 1 and O is C

    Args:
        in_channels, out_channels: channels.
        kernel_size, stride: of the depthwise convolution.
        squeeze_channels: hidden width of the squeeze-excite, None for none.
        activation: of the depthwise convolution and of the squeeze-excite's hidden layer.
        gate: of the squeeze-excite, sigmoid or hardsigmoid.
        padding, norm_eps, norm_momentum: as in `ConvNormAct`.
        drop_path_rate: probability of dropping the block's branch for an image in training.

    The input is added to the output iff stride is 1 and in_channels equals out_channels (`has_skip`).

    Shape: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        squeeze_channels: int | None = None,
        activation: str = "silu",
        gate: str = "sigmoid",
        padding: str = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        drop_path_rate: float = 0.0,
    ):
        super().__init__(in_channels, out_channels, stride, drop_path_rate)
        conv_options = {"padding": padding, "norm_eps": norm_eps, "norm_momentum": norm_momentum}
        self._add_depthwise_and_project(
            in_channels, out_channels, kernel_size, stride, squeeze_channels, activation, gate, conv_options
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._depthwise_and_project(x, shortcut=x)


class MBConv(_DepthwiseBlock):
    """Mobile inverted bottleneck: 1x1 expansion, depthwise convolution, squeeze-excite, linear projection.

    In plain PyTorch::

        plain = nn.Sequential(
            nn.Conv2d(C, M, 1, bias=False), nn.BatchNorm2d(M), nn.SiLU(),                   # expand
            nn.Conv2d(M, M, k, stride, k // 2, groups=M, bias=False), nn.BatchNorm2d(M), nn.SiLU(),
            SqueezeExcite(M, S),                                # squeeze_channels=S
            nn.Conv2d(M, O, 1, bias=False), nn.BatchNorm2d(O),                              # project
        )
        y = plain(x) + x                                        # x where stride is 1 and O is C

    Args:
        in_channels, out_channels: channels.
        expanded_channels: channels of the depthwise convolution (EfficientNet: 6 * in_channels).
        kernel_size, stride: of the depthwise convolution.
        squeeze_channels: hidden width of the squeeze-excite, None for none.
        activation: of the expansion, the depthwise convolution and the squeeze-excite's hidden layer.
        gate: of the squeeze-excite, sigmoid or hardsigmoid.
        padding, norm_eps, norm_momentum: as in `ConvNormAct`.
        drop_path_rate: probability of dropping the block's branch for an image in training.

    The input is added to the output iff stride is 1 and in_channels equals out_channels (`has_skip`).

    Shape: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expanded_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        squeeze_channels: int | None = None,
        activation: str = "silu",
        gate: str = "sigmoid",
        padding: str = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        drop_path_rate: float = 0.0,
    ):
        super().__init__(in_channels, out_channels, stride, drop_path_rate)
        conv_options = {"padding": padding, "norm_eps": norm_eps, "norm_momentum": norm_momentum}
        self.expand = ConvNormAct(in_channels, expanded_channels, 1, activation=activation, **conv_options)
        self._add_depthwise_and_project(
            expanded_channels,
            out_channels,
            kernel_size,
            stride,
            squeeze_channels,
            activation,
            gate,
            conv_options,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._depthwise_and_project(self.expand(x), shortcut=x)
