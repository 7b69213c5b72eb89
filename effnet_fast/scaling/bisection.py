"""The last step of a rising staircase that is within a budget."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["last_within"]


def last_within(
    cost: Callable[[int], float],
    budget: float,
    *,
    low: int,
    high: int,
    step: int,
    tolerance: int = 1,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[int | None, int | None]:
    """(last index found within the budget, first index found above it), `tolerance` apart.

    Args:
        cost: of an index in low..high; does not fall.
        budget: most that is allowed.
        low, high: ends of the search, included.
        step: of the walk from 0 (or the nearest end) to the first pair of indices with the budget in between.
            It is constant, and not doubled, because cost is exponential: walking costs little more than its
            last step, and that is at most one step too far.
        tolerance: distance at which bisection ends.
        enough: asked before every further index; True ends the search with what is known.

    None for the first where no index was found within the budget, for the second where none above it.
    """
    within: int | None = None
    above: int | None = None
    index = min(max(0, low), high)
    while True:
        if cost(index) <= budget:
            within = index
            following = min(index + step, high)
        else:
            above = index
            following = max(index - step, low)
        between = within is not None and above is not None
        if between or following == index or enough():
            break
        index = following
    while within is not None and above is not None and above - within > tolerance and not enough():
        middle = (within + above) // 2
        if cost(middle) <= budget:
            within = middle
        else:
            above = middle
    return within, above
