"""Checks of numbers that people give, with one wording."""

from __future__ import annotations

import math
from numbers import Real

__all__ = ["integer", "number"]


def number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> float:
    """`value` as a float; TypeError unless it is real, ValueError unless it is finite and in range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    value = float(value)
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{name} must be a finite number{_range(least, most)}, got {value:g}")
    return value


def integer(name: str, value: object, least: int) -> int:
    """`value` as an integer; TypeError unless it is one, ValueError below `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def _range(least: float, most: float) -> str:
    if math.isinf(least):
        return "" if math.isinf(most) else f" of at most {most:g}"
    return f" of at least {least:g}" if math.isinf(most) else f" from {least:g} to {most:g}"
