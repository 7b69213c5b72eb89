"""What stands on the page: a plot of a few panels, its legend, the table below it, and what a gate said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.plots import STYLES
from benchmarks.rows import FAIL, OK
from benchmarks.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Of peers that have no style of their own, in turn: colour, marker, line.
SPARE_STYLES = (
    ("#4f772d", "v", "-"),
    ("#b5651d", "p", "--"),
    ("#1b6f8a", "h", "-."),
    ("#a23e8c", "d", ":"),
    ("#6b705c", "H", "--"),
)

OURS = STYLES["engine"][0]
STOCK = STYLES["eager-nhwc"][0]


@dataclass(frozen=True)
class Style:
    """How a series is drawn, in a panel and in the legend; `dash` is empty for bars and for points."""

    colour: str
    marker: str = "s"
    dash: object = ""
    filled: bool = True


@dataclass(frozen=True)
class Cell:
    """Text of a table with a class of the style sheet: "fail", "none" (there is no time) or "ours"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first `left` columns hold words, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    left: int = 1


@dataclass(frozen=True)
class Panel:
    """One picture: `draw` puts it into axes, and returns the texts that artists show when pointed at, by
    their `gid`.

    `height` is in inches at a width of `drawing.WIDTH`.
    """

    name: str
    title: str
    draw: Callable[[Axes], dict[str, str] | None]
    height: float = 3.1


@dataclass(frozen=True)
class Exhibit:
    """A plot with everything below it."""

    title: str
    about: str
    panels: Sequence[Panel]
    table: Table
    legend: Sequence[tuple[str, Style]] = ()
    notes: Sequence[str] = field(default_factory=list)


def style_of(peer: str, peers: Iterable[str]) -> Style:
    """The style of `peer` among `peers`, whose order decides about those without one of their own."""
    if peer in STYLES:
        return Style(*STYLES[peer])
    aliases = {"tuned": "eager-tuned"}  # the fastest of a group of one
    if peer in aliases:
        return Style(*STYLES[aliases[peer]])
    spare = [name for name in peers if name not in STYLES and name not in aliases]
    return Style(*SPARE_STYLES[spare.index(peer) % len(SPARE_STYLES)])


def legend_of(labels: dict[str, str]) -> list[tuple[str, Style]]:
    """(label, style) of every peer in `labels`, name -> label."""
    return [(label, style_of(peer, labels)) for peer, label in labels.items()]


def status_cell(row: Row) -> Cell:
    """What stands in the place of the time of a row without one."""
    text = str(row["status"])
    return Cell(text, "fail" if text in (FAIL, "error") else "none")


def number(value: object) -> str:
    """A figure of a table: four digits, more where they are in front of the point."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def gate_text(rows: Sequence[Row]) -> str:
    """One sentence: how many rows were checked and passed, and which did not."""
    if not rows:
        return "The file has no rows."
    if not any("status" in row for row in rows):
        return "Steps of an engine that other commands check; nothing is compared here."
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.get("status"))] = counts.get(str(row.get("status")), 0) + 1
    checked = [
        row for row in rows if row.get("status") == OK and isinstance(row.get("error_usage"), (int, float))
    ]
    said = f"{counts.pop(OK, 0)} of {len(rows)} rows are ok"
    if checked:
        worst = max(checked, key=lambda row: row["error_usage"])
        said += (
            f", {len(checked)} of them checked before they were timed; the largest error is "
            f"{worst['error_usage']:.2f} of what is allowed ({worst.get('label', '')}, "
            f"{worst.get('case', '')})"
        )
    without = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{said}. Without a time: {without}." if without else f"{said}."
