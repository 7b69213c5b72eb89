"""Alpha, beta and gamma by grid search, as the paper found its own: a score for each, under one cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from effnet_fast.models.checks import number
from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.counts import count_macs
from effnet_fast.models.formula import MOST_COEFFICIENT
from effnet_fast.models.networks import scaled_model_config
from effnet_fast.scaling.progress import shown
from effnet_fast.scaling.record import Record

__all__ = ["GridPoint", "GridSearch", "grid_points", "grid_search"]


@dataclass(frozen=True)
class GridPoint:
    """One triple, its network at the search's phi, and the score of that network.

    `product` is alpha * beta^2 * gamma^2; `macs` are the network's own multiply-adds, roundings included.
    """

    alpha: float
    beta: float
    gamma: float
    product: float
    macs: int
    config: EfficientNetConfig
    score: float


@dataclass(frozen=True)
class GridSearch:
    """`best` has the highest score, the first of equal ones; `points` has all of them in the grid's order."""

    best: GridPoint
    points: tuple[GridPoint, ...]


def grid_points(
    *, step: float = 0.05, constraint: float = 2.0, tolerance: float = 0.05
) -> list[tuple[float, float, float]]:
    """All (alpha, beta, gamma) of the grid 1, 1 + step, ... whose alpha * beta^2 * gamma^2 is `constraint`
    within a share of `tolerance`, in ascending order; none is above 4, as in `compound`.

    Raises: TypeError or ValueError for a step outside 0.001..1, a constraint outside 1..16, a tolerance
        outside 0..0.5, or a grid without any point.
    """
    step = number("step", step, 0.001, 1.0)
    constraint = number("constraint", constraint, 1.0, 16.0)
    tolerance = number("tolerance", tolerance, 0.0, 0.5)
    most = constraint * (1 + tolerance)
    points = [
        (alpha, beta, gamma)
        for alpha in _axis(step, min(most, MOST_COEFFICIENT))
        for beta in _axis(step, min((most / alpha) ** 0.5, MOST_COEFFICIENT))
        for gamma in _axis(step, min((most / alpha) ** 0.5 / beta, MOST_COEFFICIENT))
        if abs(_product(alpha, beta, gamma) / constraint - 1) <= tolerance + 1e-12
    ]
    if not points:
        raise ValueError(
            f"no point of the grid with step={step:g} is within {tolerance:.1%} of "
            f"constraint={constraint:g}: use a smaller step or a larger tolerance"
        )
    return points


def grid_search(
    score: Callable[[EfficientNetConfig], float],
    *,
    phi: float = 1.0,
    step: float = 0.05,
    constraint: float = 2.0,
    tolerance: float = 0.05,
    file: str | PathLike[str] | None = None,
    label: str = "",
    progress: bool = True,
    **scaling,
) -> GridSearch:
    """Score the network of every point of the grid, and return the best.

    The paper's search is the default: phi = 1, so that alpha, beta and gamma are the multipliers themselves,
    and a cost of about twice the base's.

    Args:
        score: configuration -> number, higher is better: train and evaluate a network, or estimate it.
        phi: at which networks are compared; not 0, where all of them are the base.
        step, constraint, tolerance: see `grid_points`.
        file: JSON; finished points are kept in it as they come, and a search with the same settings goes on
            after them. None: nothing is kept.
        label: any text that says what the score is; a file of another label is refused.
        progress: show a bar on standard error, if that is a terminal.
        **scaling: as `scaled_model_config` takes it: base, base_stages, base_resolution, num_classes, ...

    Raises: TypeError or ValueError for an argument outside its range, a score that is no finite number, or a
        file that is damaged or belongs to other settings; OSError for one that cannot be written, before
        anything is scored. What `score` raises ends the search; points that were finished before stay in the
        file.

    Example:
        >>> found = grid_search(train_and_evaluate, file="grid.json", base_resolution=64)
        >>> found.best.alpha, found.best.beta, found.best.gamma
    """
    if not callable(score):
        raise TypeError(f"score must be callable, got {type(score).__name__}")
    for name in ("alpha", "beta", "gamma"):
        if name in scaling:
            raise TypeError(f"{name} is what is searched: it cannot be given")
    if number("phi", phi) == 0:
        raise ValueError("phi must not be 0: every alpha, beta and gamma gives the base there")
    triples = grid_points(step=step, constraint=constraint, tolerance=tolerance)
    # All of them first: a configuration that cannot be is better known before hours of training.
    configs = [_config(triple, phi, scaling) for triple in triples]
    settings = {
        "phi": float(phi),
        "step": float(step),
        "constraint": float(constraint),
        "tolerance": float(tolerance),
        "label": str(label),
        "scaling": {name: repr(value) for name, value in sorted(scaling.items())},
    }
    record = Record.open(None if file is None else Path(file), settings)
    points = []
    with shown(len(triples), progress) as update:
        for done, (triple, config) in enumerate(zip(triples, configs, strict=True)):
            update(done, "alpha {:g}, beta {:g}, gamma {:g}".format(*triple))
            value = record.score_of(triple)
            if value is None:
                value = number("the score", score(config))
                record.add(triple, value)
            points.append(GridPoint(*triple, _product(*triple), count_macs(config), config, value))
    return GridSearch(max(points, key=lambda point: point.score), tuple(points))


def _config(triple: tuple[float, float, float], phi: float, scaling: dict) -> EfficientNetConfig:
    alpha, beta, gamma = triple
    return scaled_model_config(phi, alpha=alpha, beta=beta, gamma=gamma, **scaling)


def _product(alpha: float, beta: float, gamma: float) -> float:
    return alpha * beta**2 * gamma**2


def _axis(step: float, most: float) -> Iterator[float]:
    """1, 1 + step, ... up to `most`, as decimal numbers: 1.15, not 1.1500000000000001."""
    index = 0
    while (value := round(1 + index * step, 9)) <= most + 1e-9:
        yield value
        index += 1
