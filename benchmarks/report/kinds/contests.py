"""Any contest of ours against others, case by case: speed-up bars and the times. Also what is shown of a kind
that nothing better is known of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report import drawing
from benchmarks.report.exhibits import OURS, Cell, Exhibit, Panel, Style, Table, number, status_cell
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import Row, is_ours, ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Columns without which rows are no contest.
NEEDED = ("case", "peer", "group", "status")

#: Cases of one panel: more would be higher than a phone.
MOST_CASES = 30

#: Characters of a case's name at an axis: half of the panel.
LONGEST_NAME = 36

SPEED_UP = Style("#3366cc")


def exhibits(results: Results) -> list[Exhibit]:
    """Speed-ups where rows are a contest with times; nothing, and all the rows below, where they are not."""
    rows = results.rows
    cases: dict[str, list[Row]] = {}
    for row in rows:
        if all(name in row for name in NEEDED):
            cases.setdefault(str(row["case"]), []).append(row)
    timed = {key: case for key, case in cases.items() if ratio(case) is not None}
    if not timed:
        return []
    panels = []
    for dtype in dict.fromkeys(str(case[0].get("dtype", "")) for case in timed.values()):
        keys = [key for key, case in timed.items() if str(case[0].get("dtype", "")) == dtype]
        for part, first in enumerate(range(0, len(keys), MOST_CASES)):
            members = [timed[key] for key in keys[first : first + MOST_CASES]]
            more = f", part {part + 1}" if len(keys) > MOST_CASES else ""
            height = drawing.bars_height(len(members), 1)
            name = f"speed-up-{dtype}-{part}"
            batches = {case[0].get("batch") for case in members}
            batch = f", batch {batches.pop()}" if len(batches) == 1 and None not in batches else ""
            draw = partial(_draw, members, batch=bool(batches))
            panels.append(Panel(name, f"{dtype}{batch}{more}", draw, height))
    return [
        Exhibit(
            "Speed-up",
            "effnet_fast's speed over that of the fastest other: 1 is the same, and left of the line it is "
            "slower.",
            panels,
            _table(list(cases.values())),
            [("over the fastest other", SPEED_UP)],
            reasons(rows),
        )
    ]


def _fastest(rows: Sequence[Row]) -> Row | None:
    timed = [row for row in rows if row["status"] == OK and row.get("median_ms")]
    return min(timed, key=lambda row: row["median_ms"], default=None)


def ratio(case: Sequence[Row]) -> float | None:
    """Speed of our fastest over that of the fastest other; None where one of them has no time."""
    ours = _fastest([row for row in case if is_ours(row)])
    other = _fastest([row for row in case if not is_ours(row)])
    return None if ours is None or other is None else other["median_ms"] / ours["median_ms"]


def _draw(cases: Sequence[Sequence[Row]], axes: Axes, *, batch: bool) -> None:
    ratios = [ratio(case) for case in cases]
    names = [_name(case[0], batch=batch and "batch" in case[0]) for case in cases]
    drawing.bars(axes, names, [(SPEED_UP, ratios)], [[f"{value:.2f}" for value in ratios]])
    axes.axvline(1.0, color=OURS, linewidth=1.2, zorder=1)
    axes.set_xlabel("times the other's speed")


def _name(row: Row, *, batch: bool) -> str:
    """Short enough for an axis: what a case is of, without what its panel says; `batch`: with that."""
    text = str(row.get("block") or row.get("layer") or row.get("model") or row["case"])
    text = f"{row['library']} {text}" if "library" in row else text.removeprefix("efficientnet_")
    text = f"{text} {row['layout']}" if "layout" in row else text
    text = f"{text} ×{row['batch']}" if batch else text
    return text if len(text) <= LONGEST_NAME else f"…{text[1 - LONGEST_NAME :]}"


def _table(cases: Sequence[Sequence[Row]]) -> Table:
    labels: dict[str, str] = {}
    for case in cases:
        labels |= {str(row["peer"]): str(row.get("label", row["peer"])) for row in case}
    lines = []
    for case in cases:
        by_peer = {str(row["peer"]): row for row in case}
        lines.append(
            [str(case[0]["case"]), *(_time(by_peer.get(peer)) for peer in labels), ratio_text(ratio(case))]
        )
    return Table(["case", *(f"{label}, ms" for label in labels.values()), "speed-up"], lines)


def _time(row: Row | None) -> str | Cell:
    if row is None:
        return "-"
    if row["status"] != OK:
        return status_cell(row)
    return Cell(number(row.get("median_ms", "-")), "ours" if is_ours(row) else "")


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why rows have no time, each reason once."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.get("status", OK) != OK:
            reason = f"{row.get('label', row.get('peer'))}: {row['status']}: {row.get('reason', '')}"
            counts[reason] = counts.get(reason, 0) + 1
    return [f"{reason} ({count} cases)" for reason, count in counts.items()]
