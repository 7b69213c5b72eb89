"""One block in rungs, from stock PyTorch to one kernel, above the floor of its bytes and its arithmetic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.ladder_tables import COLUMNS, Rung, lines, notes, rungs_of, why_not
from benchmarks.report import drawing
from benchmarks.report.exhibits import OURS, STOCK, Cell, Exhibit, Panel, Style, Table, number
from benchmarks.results import Results
from benchmarks.rows import FAIL, OK
from benchmarks.tables import SHORT_DTYPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR = "#2a9d8f"
COLOURS = {"stock": STOCK, "ours": OURS}


def exhibits(results: Results) -> list[Exhibit]:
    """One panel: a ladder is of one block in one setting."""
    first = results.rows[0]
    model = str(first["model"]).removeprefix("efficientnet_")
    title = f"{model} {first['block']}, {SHORT_DTYPES[first['dtype']]}, batch {first['batch']}"
    rungs = rungs_of(results.rows)
    draw = partial(_draw, rungs, first)
    legend = [("stock PyTorch", Style(STOCK)), ("effnet_fast", Style(OURS))]
    if "floor_us" in first:
        legend.append((f"floor: {first['floor_bound']}", Style(FLOOR, "", "--")))
    return [
        Exhibit(
            title,
            f"Each rung fuses more than the one before it ({first['shape']}).",
            [Panel("ladder", "microseconds an image", draw, drawing.bars_height(len(rungs), 1) + 0.3)],
            Table(COLUMNS, [_line(cells, rungs) for cells in lines(results)]),
            legend,
            notes(results),
        )
    ]


def _draw(rungs: list[Rung], first: dict, axes: Axes) -> None:
    drawing.single_bars(
        axes,
        [
            drawing.Bar(
                str(rung.row["label"]),
                rung.row["median_us"],
                f"{number(rung.row['median_us'])}" + _over(rung),
                COLOURS[str(rung.row["group"])],
                (rung.row["p20_us"], rung.row["p80_us"]),
            )
            if rung.row["status"] == OK
            else drawing.Bar(str(rung.row["label"]), None, why_not(rung.row))
            for rung in rungs
        ],
    )
    if "floor_us" in first:
        axes.axvline(first["floor_us"], color=FLOOR, linestyle="--", linewidth=1.4, zorder=0)


def _over(rung: Rung) -> str:
    return "" if rung.over_eager in (None, 1.0) else f"  ({rung.over_eager:.2f}x)"


def _line(cells: list[str], rungs: list[Rung]) -> list[str | Cell]:
    """`cells` of the table on a terminal, with the colour of what has no time."""
    row = next((rung.row for rung in rungs if rung.row["label"] == cells[0]), None)
    if row is None or row["status"] == OK:
        return list(cells)
    return [cells[0], Cell(cells[1], "fail" if row["status"] in (FAIL, "error") else "none"), *cells[2:]]
