"""Stochastic depth (Huang et al., 2016, https://arxiv.org/abs/1603.09382), one decision per image."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["DropPath", "check_rate"]


def check_rate(name: str, rate: float) -> float:
    """Return `rate` as a float; TypeError unless it is a number, ValueError unless 0 <= rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(rate).__name__}")
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {rate}")
    return float(rate)


class DropPath(nn.Module):
    """In training, zeroes each image of the batch with probability `rate` and divides the others by 1 - rate.

    The expectation is the input, so that evaluation is the identity. (TensorFlow's EfficientNet calls this
    `drop_connect`; torchvision, `StochasticDepth(mode="row")`.) In plain PyTorch, in training::

        mask = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - rate)
        y = x * (mask / (1 - rate))

    Shape: [N, ...] -> [N, ...]. Raises: ValueError unless 0 <= rate < 1, TypeError unless it is a number.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = check_rate("rate", rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)
        return x * mask

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4g}"
