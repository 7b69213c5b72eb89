"""Where a call spends its time: every block of the engine's plan, and what its arithmetic takes at least."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.ideal import share_of_peak, share_text
from benchmarks.profile import StepTime
from benchmarks.profile_tables import block_rows, ideal_text
from benchmarks.report import drawing
from benchmarks.report.exhibits import OURS, Exhibit, Panel, Style, Table, number
from benchmarks.results import Results
from benchmarks.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIME, IDEAL = Style(OURS), Style("#868d95")


def exhibits(results: Results) -> list[Exhibit]:
    """One panel: a bar for each block, and one for its ideal."""
    rows = results.rows
    steps = [_step(row) for row in rows]
    found = block_rows(steps)
    first = rows[0]
    model = str(first["model"]).removeprefix("efficientnet_")
    panel = Panel(
        "profile", "milliseconds of one call", partial(_draw, found), drawing.bars_height(len(found), 2)
    )
    lines = []
    for row in rows:
        rate = (
            f"{1e3 * row['gmacs'] / row['milliseconds']:.1f}" if row["gmacs"] and row["milliseconds"] else "-"
        )
        share = share_text(share_of_peak(row["ideal_ms"], row["milliseconds"]))
        named = [row["step"], row["group"], row["operator"], row["shape"]]
        lines.append(
            [
                *named,
                str(row["passes"]),
                number(row["milliseconds"]),
                rate,
                ideal_text(row["ideal_ms"]),
                share,
            ]
        )
    headings = ["step", "kind", "operator", "shape", "passes", "ms", "GMAC/s", "ideal ms", "of peak"]
    return [
        Exhibit(
            f"{model}, {first['dtype']}, batch {first['batch']}",
            "Ideal: what the multiply-adds and SiLU evaluations take at the peaks of this CPU if nothing had "
            "to be loaded or stored.",
            [panel],
            Table(headings, lines, left=4),
            [("measured", TIME), ("ideal", IDEAL)],
        )
    ]


def _step(row: Row) -> StepTime:
    columns = ("block", "group", "operator", "shape", "passes", "milliseconds", "gmacs", "ideal_ms")
    return StepTime(row["step"], *(row[name] for name in columns))


def _draw(blocks: Sequence[Row], axes: Axes) -> None:
    taken = [block["milliseconds"] for block in blocks]
    ideal = [block["ideal_ms"] for block in blocks]
    texts = [[number(value) for value in taken], ["" if value is None else number(value) for value in ideal]]
    drawing.bars(axes, [str(block["block"]) for block in blocks], [(TIME, taken), (IDEAL, ideal)], texts)
    axes.set_xlabel("ms")
