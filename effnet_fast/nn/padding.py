"""Padding of a convolution: symmetric k // 2, or TensorFlow's "SAME"."""

from __future__ import annotations

__all__ = ["PADDING_MODES", "check_padding_mode", "conv_padding", "same_padding"]

PADDING_MODES = ("symmetric", "same")


def check_padding_mode(padding: str) -> str:
    """Return `padding`, or raise ValueError (TypeError when it is not a string)."""
    if not isinstance(padding, str):
        raise TypeError(f"padding must be a string, one of {PADDING_MODES}, got {type(padding).__name__}")
    if padding not in PADDING_MODES:
        raise ValueError(f"padding must be one of {PADDING_MODES}, got {padding!r}")
    return padding


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: (before, after).

    The output has ceil(size / stride) positions; the padding that this needs is split evenly, with the odd
    one after. At stride 1 that is k // 2 on both sides. At stride 2 it is symmetric for an odd size, and
    one less
    before than after for an even size: (0, 1) for k = 3, (1, 2) for k = 5.
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def conv_padding(
    padding: str, size: tuple[int, int], kernel_size: int, stride: int
) -> tuple[int, int, int, int]:
    """Padding (top, left, bottom, right) of a convolution on an input of `size` = (h, w)."""
    if padding == "symmetric":
        half = kernel_size // 2
        return half, half, half, half
    (top, bottom), (left, right) = (same_padding(extent, kernel_size, stride) for extent in size)
    return top, left, bottom, right
