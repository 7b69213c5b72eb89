"""Depthwise convolution with the sums of its activated values, taken in float32 before they are rounded."""

from __future__ import annotations

from .depthwise_conv import launches

__all__ = ["launches"]
