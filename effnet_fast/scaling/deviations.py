"""Where the published networks deviate from the formula that they are named after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_fast.models.coefficients import COEFFICIENTS, Coefficients
from effnet_fast.models.formula import ALPHA, BASE_RESOLUTION, BETA, GAMMA, Compound, compound

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Deviation", "deviation_table", "deviations"]


@dataclass(frozen=True)
class Deviation:
    """One published network beside the formula.

    Attributes:
        variant: b0..b8, l2.
        index: the number in its name, which the paper calls phi; None for L2.
        used: what was trained.
        formula: `compound(index)`; None for L2.
        phi_depth, phi_width, phi_resolution: the phi at which the formula would give what was used.
        phi_cost: the same for depth * width^2 * resolution^2.
        cost: depth * width^2 * resolution^2 as used, B0 = 1.
    """

    variant: str
    index: int | None
    used: Coefficients
    formula: Compound | None
    phi_depth: float
    phi_width: float
    phi_resolution: float
    phi_cost: float
    cost: float


def deviations() -> list[Deviation]:
    """B0..B8 and L2 in order: the phi that each axis of each network really has.

    With alpha, beta, gamma = 1.2, 1.1, 1.15. B1 is only as wide as phi = 0 and as deep as 0.52, B7 between
    6.2 and 7.3; the networks B0..B7 are about phi = 0, 0.5, 1, 2, 3.5, 5, 6, 7.
    """
    return [_deviation(variant, used) for variant, used in COEFFICIENTS.items()]


def _deviation(variant: str, used: Coefficients) -> Deviation:
    index = int(variant[1:]) if variant.startswith("b") else None
    resolution = used.resolution / BASE_RESOLUTION
    cost = used.depth * used.width**2 * resolution**2
    return Deviation(
        variant=variant,
        index=index,
        used=used,
        formula=None if index is None else compound(index),
        phi_depth=math.log(used.depth) / math.log(ALPHA),
        phi_width=math.log(used.width) / math.log(BETA),
        phi_resolution=math.log(resolution) / math.log(GAMMA),
        phi_cost=math.log(cost) / math.log(ALPHA * BETA**2 * GAMMA**2),
        cost=cost,
    )


def deviation_table() -> Table:
    """`deviations()` for a terminal."""
    from rich.table import Table

    table = Table(
        title="published coefficients, and the formula at phi = the number in the name",
        title_justify="left",
        caption="phi: where the formula gives what was used; cost: depth * width² * resolution², B0 = 1",
        caption_justify="left",
    )
    table.add_column("network", no_wrap=True)
    for heading in (
        "depth", "formula", "phi", "width", "formula", "phi", "resolution", "formula", "phi",
        "cost", "formula", "phi",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for row in deviations():
        used, formula = row.used, row.formula
        table.add_row(
            row.variant.upper(),
            f"{used.depth:g}",
            "" if formula is None else f"{formula.depth:.3f}",
            f"{row.phi_depth:.2f}",
            f"{used.width:g}",
            "" if formula is None else f"{formula.width:.3f}",
            f"{row.phi_width:.2f}",
            str(used.resolution),
            "" if formula is None else f"{formula.exact_resolution:.1f}",
            f"{row.phi_resolution:.2f}",
            f"{row.cost:.2f}",
            "" if formula is None else f"{formula.cost:.2f}",
            f"{row.phi_cost:.2f}",
        )
    return table
