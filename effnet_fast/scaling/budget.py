"""The largest network within a budget of multiply-adds, parameters, memory or time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from effnet_fast.models.checks import integer, number
from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.counts import count_macs, count_parameters
from effnet_fast.models.networks import limits_of, scaled_model_config
from effnet_fast.scaling.bisection import last_within
from effnet_fast.scaling.engines import engine_bytes, engine_milliseconds
from effnet_fast.scaling.progress import shown

__all__ = ["Budgeted", "Point", "phi_for_budget"]

_GRID = 1000  # phi is searched in thousandths

_UNITS = {"macs": "multiply-adds", "params": "parameters", "memory_mb": "MB", "latency_ms": "ms"}

# What is built or run, not only counted, is kept to sizes that a machine can hold: B8 is phi 7.75.
_BUILT_RANGE = (-8.0, 8.0)


@dataclass(frozen=True)
class Point:
    """A network that was looked at, and its cost in the budget's unit."""

    phi: float
    config: EfficientNetConfig
    cost: float


@dataclass(frozen=True)
class Budgeted:
    """What `phi_for_budget` found.

    Attributes:
        phi: three decimals.
        config: the network.
        achieved: its cost, at most the budget.
        budget, unit: as given; multiply-adds, parameters, MB or ms.
        points: every network that was counted or measured, in that order.
    """

    phi: float
    config: EfficientNetConfig
    achieved: float
    budget: float
    unit: str
    points: tuple[Point, ...]


def phi_for_budget(
    *,
    macs: float | None = None,
    params: float | None = None,
    memory_mb: float | None = None,
    latency_ms: float | None = None,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    phi_range: tuple[float, float] | None = None,
    tolerance: float | None = None,
    max_points: int = 64,
    measure: Callable[[EfficientNetConfig], float] | None = None,
    progress: bool = False,
    on_point: Callable[[Point], object] | None = None,
    **scaling,
) -> Budgeted:
    """The largest phi whose network is within one budget, to three decimals.

    Widths are rounded to multiples of 8, depths up, resolutions to multiples of 4, so cost is a staircase in
    phi: the answer is the last phi before the step that passes the budget. Multiply-adds and parameters are
    counted, memory is planned, latency is measured; a network is built for latency alone.

    Args:
        macs: multiply-adds of one image.
        params: trainable parameters.
        memory_mb: megabytes (10^6 bytes) of an `InferenceEngine`: activations of `batch_size` images by its
            planner, and weights.
        latency_ms: milliseconds of one engine call with `batch_size` images.
        batch_size, dtype, device: of that engine.
        phi_range: (least, most) phi. None: all that `compound` takes; -8 to 8 for memory and latency.
        tolerance: distance of phi at which the search ends, at least 0.001. None: 0.001; 0.05 for latency,
            where noise is larger than a step.
        max_points: networks looked at, at most.
        measure: configuration -> cost, a positive number, in the place of counting or measuring.
        progress: show it on standard error, if that is a terminal.
        on_point: called with every point as it is known.
        **scaling: as `scaled_model_config` takes it: base, alpha, beta, gamma, num_classes, ...

    A cost that is measured is noisy, and memory is not quite monotone: the result is within the budget, and
    the next phi that was looked at is not.

    Raises: TypeError or ValueError, naming the argument: not exactly one budget, a budget below the smallest
        or above the largest network (the nearest one and its cost are in the message), too few points, or a
        `measure` that gives no positive number.

    Example:
        >>> phi_for_budget(macs=1e9).phi
        >>> phi_for_budget(latency_ms=5, batch_size=1, dtype=torch.bfloat16).points
    """
    kind, budget = _one_budget(macs=macs, params=params, memory_mb=memory_mb, latency_ms=latency_ms)
    engine = {"batch_size": integer("batch_size", batch_size, 1), "dtype": dtype, "device": device}
    costs = {
        "macs": count_macs,
        "params": count_parameters,
        "memory_mb": lambda config: engine_bytes(config, **engine) / 1e6,
        "latency_ms": partial(engine_milliseconds, **engine),
    }
    for name, function in (("measure", measure), ("on_point", on_point)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable, got {type(function).__name__}")
    if "phi" in scaling:
        raise TypeError("phi is what is searched: it cannot be given")
    cost_of = costs[kind] if measure is None else measure
    if tolerance is None:
        tolerance = 0.05 if kind == "latency_ms" else 1 / _GRID
    tolerance = number("tolerance", tolerance, 1 / _GRID)
    integer("max_points", max_points, 1)
    low, high = _range(kind, phi_range, scaling)

    points: list[Point] = []
    known: dict[EfficientNetConfig, float] = {}
    with shown(None, progress) as update:

        def cost(index: int) -> float:
            phi = index / _GRID
            config = scaled_model_config(phi, **scaling)
            # Between two steps of the staircase there is one network under many names.
            same = replace(config, name="", drop_rate=0.0)
            if same not in known:
                update(len(points), f"phi {phi:g}")
                known[same] = _positive(f"the cost of {config.name}", cost_of(config))
                points.append(Point(phi, config, known[same]))
                if on_point is not None:
                    on_point(points[-1])
            return known[same]

        within, above = last_within(
            cost,
            budget,
            low=low,
            high=high,
            step=_GRID,
            tolerance=max(1, round(tolerance * _GRID)),
            enough=lambda: len(points) >= max_points,
        )
    if within is None or above is None:
        raise ValueError(_impossible(kind, budget, points, exhausted=len(points) >= max_points))
    phi = within / _GRID
    config = scaled_model_config(phi, **scaling)
    return Budgeted(phi, config, cost(within), budget, _UNITS[kind], tuple(points))


def _one_budget(**given: float | None) -> tuple[str, float]:
    budgets = {name: value for name, value in given.items() if value is not None}
    if len(budgets) != 1:
        raise ValueError(
            f"exactly one budget must be given, of {', '.join(given)}, got {', '.join(budgets) or 'none'}"
        )
    ((name, value),) = budgets.items()
    return name, _positive(name, value)


def _positive(name: str, value: object) -> float:
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return float(value)


def _range(kind: str, phi_range: tuple[float, float] | None, scaling: dict) -> tuple[int, int]:
    """Least and most phi in thousandths."""
    least, most = limits_of(**scaling)
    if math.isinf(least):
        raise ValueError("alpha, beta and gamma are all 1: every phi is the same network, so none fits best")
    if phi_range is None:
        low, high = _BUILT_RANGE if kind in ("memory_mb", "latency_ms") else (least, most)
        return _thousandths(max(low, least), min(high, most))
    if not isinstance(phi_range, (tuple, list)) or len(phi_range) != 2:
        raise TypeError(f"phi_range must be a pair (least, most), got {phi_range!r}")
    low, high = (number("phi_range", end) for end in phi_range)
    if not least <= low < high <= most:
        raise ValueError(
            f"phi_range must be two ascending numbers from {least:.2f} to {most:.2f}, got ({low:g}, {high:g})"
        )
    first, last = _thousandths(low, high)
    if first > last:
        raise ValueError(f"phi_range must hold a phi of three decimals, got ({low:.10g}, {high:.10g})")
    return first, last


def _thousandths(low: float, high: float) -> tuple[int, int]:
    # 1.001 * 1000 is 1000.9999999999999.
    return math.ceil(round(low * _GRID, 6)), math.floor(round(high * _GRID, 6))


def _impossible(kind: str, budget: float, points: list[Point], *, exhausted: bool) -> str:
    """Which network is nearest to a budget that no network meets, or that none passes."""
    nearest = min(points, key=lambda point: abs(math.log(point.cost / budget)))
    size = (
        f"phi {nearest.phi:g} at {nearest.config.resolution} pixels, has {_text(nearest.cost)} {_UNITS[kind]}"
    )
    asked = f"{kind}={_text(budget)}"
    if exhausted:
        return f"max_points={len(points)} were too few to find a network for {asked}; nearest so far: {size}"
    below = nearest.cost > budget
    return (
        f"{asked} is impossible: the {'smallest' if below else 'largest'} network that is tried, {size}; "
        f"{'raise' if below else 'lower'} the budget, or change phi_range, base_resolution or num_classes"
    )


def _text(value: float) -> str:
    if value >= 1e15:
        return f"{value:g}"
    return f"{value:,.0f}" if value >= 1e5 else f"{value:.4g}"
