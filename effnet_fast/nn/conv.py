"""Convolution, batch norm and activation: the unit that every block is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from effnet_fast.nn.activations import make_activation
from effnet_fast.nn.padding import check_padding_mode, conv_padding

__all__ = ["Conv2dSame", "ConvNormAct"]


class Conv2dSame(nn.Conv2d):
    """A strided `nn.Conv2d` with TensorFlow's SAME padding, computed from each input's size.

    Its `padding` attribute is 0: the real padding depends on the input (see `ConvNormAct.padding_for`). A
    copy of the input is made only where the padding is asymmetric (an even size at stride 2). In plain
    PyTorch::

        h, w = (max((-(-size // stride) - 1) * stride + k - size, 0) for size in x.shape[2:])
        x = F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))
        y = F.conv2d(x, weight, bias, stride, groups=groups)

    Shape: [N, C, H, W] -> [N, O, ceil(H / stride), ceil(W / stride)].
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = (x.shape[-2], x.shape[-1])
        top, left, bottom, right = conv_padding("same", size, self.kernel_size[0], self.stride[0])
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), 1, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class ConvNormAct(nn.Module):
    """activation(batch_norm(conv(x))), the convolution without bias.

    In plain PyTorch::

        plain = nn.Sequential(
            nn.Conv2d(C, O, k, stride, k // 2, bias=False),     # groups=C: depthwise
            nn.BatchNorm2d(O),
            nn.SiLU(),                                          # activation="silu"
        )
        y = plain(x)

    Args:
        in_channels, out_channels: channels.
        kernel_size: odd.
        stride: at least 1, the same along both axes.
        groups: 1, or `in_channels` for a depthwise convolution.
        activation: silu, relu, relu6, hardswish or identity.
        padding: "symmetric" (k // 2 on every side) or "same" (TensorFlow's SAME; from the input's size).
        norm_eps: epsilon of the batch norm.
        norm_momentum: weight of a new batch in the running statistics (PyTorch's sense; 1 - TensorFlow's).

    Shape: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)] for either padding.

    Raises: ValueError for an even kernel size, an activation or a padding that does not exist.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: str = "silu",
        padding: str = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = check_padding_mode(padding)
        self.activation_name = activation

        if padding == "same" and stride > 1:
            self.conv = Conv2dSame(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
        else:  # at stride 1, SAME is symmetric for every input size
            self.conv = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
            )
        self.norm = nn.BatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum)
        self.activation = make_activation(activation)

    def padding_for(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Padding (top, left, bottom, right) applied to an input of this height and width."""
        return conv_padding(self.padding, (height, width), self.kernel_size, self.stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(x)))
