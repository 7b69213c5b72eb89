"""The formula of compound scaling, for any real phi. The published networks (`coefficients`) deviate from it.

depth = alpha ** phi, width = beta ** phi, resolution = base_resolution * gamma ** phi (section 3.3 of
https://arxiv.org/abs/1905.11946). The cost of a convolutional network grows as depth * width^2 *
resolution^2, so with alpha * beta^2 * gamma^2 = 2 it doubles with every phi. The paper's 1.2, 1.1, 1.15 give
1.92.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from effnet_fast.models.checks import integer, number
from effnet_fast.models.coefficients import COEFFICIENTS, Coefficients

__all__ = ["ALPHA", "BASE_RESOLUTION", "BETA", "GAMMA", "Compound", "compound", "phi_limits"]

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
BASE_RESOLUTION = 224

# Multipliers beyond these are slips of the keyboard, not networks: L2, the largest published one, has 5.3.
LEAST_MULTIPLIER, MOST_MULTIPLIER = 1 / 16, 64.0
MOST_RESOLUTION = 8192
MOST_COEFFICIENT = 4.0


@dataclass(frozen=True)
class Compound(Coefficients):
    """Coefficients that the formula gave, and what it was given.

    Attributes:
        width, depth: beta ** phi and alpha ** phi, unrounded; a network rounds them layer by layer.
        resolution: exact_resolution to the nearest multiple of a divisor.
        dropout: interpolated, see `compound`.
        phi, alpha, beta, gamma: as given.
        exact_resolution: base_resolution * gamma ** phi.
    """

    phi: float
    alpha: float
    beta: float
    gamma: float
    exact_resolution: float

    @property
    def cost(self) -> float:
        """(alpha * beta^2 * gamma^2) ** phi: how multiply-adds should grow, rounding aside."""
        return (self.alpha * self.beta**2 * self.gamma**2) ** self.phi


def compound(
    phi: float,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base_resolution: int = BASE_RESOLUTION,
    resolution_divisor: int = 4,
    stride: int = 32,
    dropout: float | None = None,
) -> Compound:
    """Coefficients by the formula. The published B1..B8 deviate from it: see `official` and `deviations`.

    Args:
        phi: any real number within `phi_limits`; 0 is the base network, negative is smaller.
        alpha, beta, gamma: growth of depth, width and resolution with phi, from 1 (fixed) to 4.
        base_resolution: pixels of a side at phi = 0.
        resolution_divisor: the resolution is rounded to the nearest multiple of it, a half upwards. 4: every
            published resolution is a multiple of 4 (260, 300 and 380 are of no larger power of two), and it
            moves a side of 224 by less than 1%.
        stride: input over output size of the network; no image may be smaller.
        dropout: before the classifier. None: linear between the published variants at equal cost, i.e. at
            log(depth * width^2 * resolution^2) of B0 (0.2) .. B8 (0.5), constant outside.

    Raises: TypeError or ValueError, naming the argument, what was given and what is allowed.

    Example:
        >>> compound(7, gamma=1.1)  # depth 3.58, width 1.95, resolution 436.5 -> 436
    """
    integer("resolution_divisor", resolution_divisor, 1)
    low, high = phi_limits(
        alpha=alpha, beta=beta, gamma=gamma, base_resolution=base_resolution, stride=stride
    )
    phi = number("phi", phi)
    if not low <= phi <= high:
        raise ValueError(
            f"phi must be from {low:.2f} to {high:.2f} for alpha={alpha:g}, beta={beta:g}, gamma={gamma:g}, "
            f"base_resolution={base_resolution} (width and depth 1/16 to 64 times the base's, images from "
            f"the network's stride of {stride} to {MOST_RESOLUTION} pixels), got {phi:g}"
        )
    depth, width, exact = alpha**phi, beta**phi, base_resolution * gamma**phi
    resolution = math.floor(exact / resolution_divisor + 0.5) * resolution_divisor
    if not stride <= resolution <= MOST_RESOLUTION:
        raise ValueError(
            f"resolution must be from the network's stride of {stride} to {MOST_RESOLUTION}, got {exact:.1f} "
            f"pixels rounded to {resolution}, a multiple of resolution_divisor={resolution_divisor}"
        )
    if dropout is None:
        dropout = _published_dropout(_cost(depth, width, exact / base_resolution))
    return Compound(
        width=width,
        depth=depth,
        resolution=resolution,
        dropout=number("dropout", dropout, 0.0, 1.0),
        phi=phi,
        alpha=float(alpha),
        beta=float(beta),
        gamma=float(gamma),
        exact_resolution=exact,
    )


def phi_limits(
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base_resolution: int = BASE_RESOLUTION,
    stride: int = 32,
) -> tuple[float, float]:
    """(least, most) phi: width and depth stay within 1/16 and 64 times the base's, the side of an image
    within the network's stride and 8192 pixels. Infinite where nothing grows (all coefficients 1).
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        number(name, value, 1.0, MOST_COEFFICIENT)
    integer("stride", stride, 1)
    integer("base_resolution", base_resolution, 1)
    if not stride <= base_resolution <= MOST_RESOLUTION:
        raise ValueError(
            f"base_resolution must be from the network's stride of {stride} to {MOST_RESOLUTION} pixels, "
            f"got {base_resolution}"
        )
    limits = [
        (math.log(least) / math.log(growth), math.log(most) / math.log(growth))
        for growth, least, most in (
            (alpha, LEAST_MULTIPLIER, MOST_MULTIPLIER),
            (beta, LEAST_MULTIPLIER, MOST_MULTIPLIER),
            (gamma, stride / base_resolution, MOST_RESOLUTION / base_resolution),
        )
        if growth > 1
    ]
    return max((low for low, _ in limits), default=-math.inf), min(
        (high for _, high in limits), default=math.inf
    )


def _cost(depth: float, width: float, resolution: float) -> float:
    return depth * width**2 * resolution**2


def _published_dropout(cost: float) -> float:
    points = [
        (math.log(_cost(c.depth, c.width, c.resolution / BASE_RESOLUTION)), c.dropout)
        for c in COEFFICIENTS.values()
    ]
    position = math.log(cost)
    if position <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if position <= right:
            return low + (high - low) * (position - left) / (right - left)
    return points[-1][1]
