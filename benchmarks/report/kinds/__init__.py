"""What the page shows of a result file, by its kind: one module for each, and one for any other kind."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.report.exhibits import Exhibit
from benchmarks.report.kinds import (
    blocks,
    compare,
    contests,
    ladder,
    latency,
    memory,
    networks,
    operators,
    profile,
)
from benchmarks.results import Results

#: Kind -> heading, and what makes the exhibits; in the order of the page.
KINDS: dict[str, tuple[str, Callable[[Results], list[Exhibit]]]] = {
    "models": ("Networks", networks.exhibits),
    "latency": ("Latency", latency.exhibits),
    "memory": ("Memory", memory.exhibits),
    "operators": ("Operators", operators.exhibits),
    "blocks": ("Blocks", blocks.exhibits),
    "ladder": ("One block, rung by rung", ladder.exhibits),
    "profile": ("Where the time goes", profile.exhibits),
    "fuse": ("Models of other libraries", contests.exhibits),
    "fuse-blocks": ("Blocks of other libraries", contests.exhibits),
    "fuse-alone": ("Layers by themselves", contests.exhibits),
    "compare": ("Two revisions", compare.exhibits),
    "photos": ("Photographs", lambda results: []),
}


def heading_of(kind: str) -> str:
    """What a section of `kind` is called."""
    return KINDS[kind][0] if kind in KINDS else kind


def order_of(kind: str) -> int:
    """Its place on the page; kinds that are not known come last."""
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def exhibits_of(results: Results) -> list[Exhibit]:
    """The plots of a result file with their tables; of a kind that is not known what any contest has."""
    return KINDS[results.kind][1](results) if results.kind in KINDS else contests.exhibits(results)
