"""Squeeze-and-excitation (Hu et al., 2018, https://arxiv.org/abs/1709.01507)."""

from __future__ import annotations

import torch
from torch import nn

from effnet_fast.nn.activations import make_activation, make_gate

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """x * gate(expand(activation(reduce(mean of x over H and W)))), both layers 1x1 convolutions with bias.

    In plain PyTorch::

        plain = nn.Sequential(nn.Conv2d(C, S, 1), nn.SiLU(), nn.Conv2d(S, C, 1), nn.Sigmoid())
        y = x * plain(x.mean((2, 3), keepdim=True))             # activation="silu", gate="sigmoid"

    Args:
        channels: channels of x.
        squeeze_channels: width of the hidden layer, at least 1. EfficientNet takes a quarter of the
            *block's input* channels, never rounded to a multiple of 8.
        activation: silu, relu, relu6, hardswish or identity.
        gate: sigmoid or hardsigmoid.

    Shape: [N, C, H, W] -> [N, C, H, W].
    """

    def __init__(
        self, channels: int, squeeze_channels: int, *, activation: str = "silu", gate: str = "sigmoid"
    ):
        super().__init__()
        if squeeze_channels < 1:
            raise ValueError(f"squeeze_channels must be at least 1, got {squeeze_channels}")
        self.activation_name = activation
        self.gate_name = gate
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.activation = make_activation(activation)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = make_gate(gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.activation(self.reduce(pooled))))
