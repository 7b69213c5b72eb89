"""Two revisions against each other: how many times as fast the second is, case by case."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.compare import Comparison, Pair, case_text, compare_rows, summary
from benchmarks.report import drawing
from benchmarks.report.exhibits import OURS, Cell, Exhibit, Panel, Style, Table, number, status_cell
from benchmarks.results import Results
from benchmarks.revision_contest import SIDES
from benchmarks.rows import OK
from benchmarks.tables import Row
from effnet_fast.measure import SAME_RUN_FLOOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPEED = Style("#3366cc")


def exhibits(results: Results) -> list[Exhibit]:
    """One panel with the pairs that have two times."""
    sides = [[{**row, "peer": ""} for row in results.rows if row["peer"] == side] for side in SIDES]
    found = compare_rows(*sides, floor=SAME_RUN_FLOOR)
    shown = [pair for pair in found.pairs if pair.difference is not None]
    height = drawing.bars_height(len(shown), 1)
    first, second = (str(results.settings.get(side, side)) for side in SIDES)
    return [
        Exhibit(
            f"{second} against {first}",
            f"Speed of {second} over that of {first}. =: no more than the spread from run to run.",
            [Panel("compare", "times the speed", partial(_draw, shown), height)] if shown else [],
            _table(found, first, second),
            [(f"{second} over {first}", SPEED)],
            summary(found, (first, second)),
        )
    ]


def _draw(pairs: list[Pair], axes: Axes) -> None:
    ratios = [pair.difference.ratio for pair in pairs]
    names = [case_text(pair.first).removeprefix("efficientnet_") for pair in pairs]
    drawing.bars(axes, names, [(SPEED, ratios)], [[_text(pair) for pair in pairs]])
    axes.axvline(1.0, color=OURS, linewidth=1.2, zorder=1)


def _text(pair: Pair) -> str:
    if pair.difference is None:
        return "-"
    return f"{pair.difference.ratio:.2f}{' =' if pair.difference.noise else ''}"


def _table(found: Comparison, first: str, second: str) -> Table:
    lines = []
    for pair in found.pairs:
        spread = "-" if pair.difference is None else f"{pair.difference.spread:.1%}"
        lines.append([case_text(pair.first), _time(pair.first), _time(pair.second), _text(pair), spread])
    return Table(["case", f"{first}, ms", f"{second}, ms", "speed of the second", "spread"], lines)


def _time(row: Row) -> str | Cell:
    return number(row["median_ms"]) if row["status"] == OK else status_cell(row)
