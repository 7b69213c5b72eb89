"""Layers by themselves: where each one is under the roofline of its machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.ideal import share_text
from benchmarks.operator_tables import Line, lines_of
from benchmarks.report import drawing
from benchmarks.report.colours import INK, MUTED
from benchmarks.report.exhibits import Cell, Exhibit, Panel, Style, Table, number, status_cell
from benchmarks.report.kinds import contests
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import Row, ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Kind of layer, as `benchmarks.profile.group_of` calls it.
STYLES = {
    "stem": Style("#8a6d3b", "P"),
    "expand": Style("#3366cc", "s"),
    "depthwise": Style("#d1495b", "o"),
    "expand + depthwise": Style("#c2649a", "D"),
    "squeeze-excite": Style("#2a9d8f", "^"),
    "project": Style("#7b4ea3", "v"),
    "head": Style("#b5651d", "X"),
    "classifier": Style("#4f772d", "d"),
}
OTHER = Style("#59636e", "h")
EAGER = Style("#868d95", "o", filled=False)

ABOUT = """\
Each filled sign is a layer of effnet_fast, each ring the same layer as eager PyTorch. To the right there
is more arithmetic for each byte that must move, upwards more of it is done in a second. The slope is the
bandwidth of a copy through memory, the level lines are the peaks of the arithmetic, all measured in the
same run. Maps that are in a cache may lie above the slope; SiLU is not in the picture, and keeps layers
with few multiply-adds low."""

#: Columns without which a row has no place in the picture; files from before they were there lack them.
NEEDED = ("gmacs", "megabytes", "gmacs_per_second")


def exhibits(results: Results) -> list[Exhibit]:
    """A roofline for each model, dtype and batch."""
    rows = results.rows
    if not any(all(name in row for name in NEEDED) for row in rows):
        return contests.exhibits(results)
    panels, kinds = [], {}
    for setting in dict.fromkeys((row["model"], row["dtype"], row["batch"]) for row in rows):
        members = [row for row in rows if (row["model"], row["dtype"], row["batch"]) == setting]
        if any(_has_place(row) for row in members):
            model, dtype, batch = setting
            title = f"{str(model).removeprefix('efficientnet_')}, {dtype}, batch {batch}"
            panels.append(Panel(f"roofline-{model}-{dtype}-{batch}", title, partial(_draw, members), 3.6))
            kinds |= {str(row["step"]): None for row in members if _has_place(row)}
    legend = [(kind, STYLES.get(kind, OTHER)) for kind in kinds]
    return [
        Exhibit(
            "Roofline of every operator",
            ABOUT,
            panels,
            _table(rows),
            [*legend, ("eager PyTorch", EAGER)],
            [*_slower(rows), *contests.reasons(rows)],
        )
    ]


def _slower(rows: Sequence[Row]) -> list[str]:
    ratios = [line.ratio for line in lines_of(rows) if line.ratio is not None]
    slower = sum(ratio < 1 for ratio in ratios)
    return [f"Slower than the fastest stock form: {slower} of {len(ratios)} calls."] if ratios else []


def _has_place(row: Row) -> bool:
    return row["status"] == OK and all(row.get(name) for name in NEEDED)


def _intensity(row: Row) -> float:
    """Multiply-adds for each byte."""
    return 1e3 * row["gmacs"] / row["megabytes"]


def _draw(rows: Sequence[Row], axes: Axes) -> dict[str, str]:
    placed = [row for row in rows if _has_place(row)]
    texts = {}
    for index, row in enumerate(placed):
        ours = row["group"] == "ours"
        if not ours and row["peer"] != "eager":
            continue
        style = STYLES.get(str(row["step"]), OTHER) if ours else EAGER
        (point,) = axes.plot(
            _intensity(row), row["gmacs_per_second"], marker=style.marker, linestyle="",
            markersize=5.5 if ours else 4.0, color=style.colour, zorder=3 if ours else 2,
            markerfacecolor=style.colour if ours else "none", markeredgewidth=0.7,
        )  # fmt: skip
        point.set_gid(f"layer{index}")
        texts[f"layer{index}"] = (
            f"{row['label']}: {row['layer']} ({row['shape']}): {number(row['gmacs_per_second'])} GMAC/s, "
            f"{number(row.get('gb_per_second', '-'))} GB/s"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _ceilings(placed, axes)
    drawing.log_ticks(axes.xaxis, plain=False)
    drawing.log_ticks(axes.yaxis, plain=False)
    axes.set_xlabel("multiply-adds for each byte moved")
    axes.set_ylabel("GMAC/s")
    axes.grid(True)
    return texts


def _ceilings(rows: Sequence[Row], axes: Axes) -> None:
    """The slope of a copy up to the highest peak, and a level line for each peak."""
    copy = rows[0]["copy_gb_per_second"]
    peaks = {}
    for row in rows:
        if "matrix_peak_gmacs" in row:
            peaks.setdefault(row["matrix_peak_gmacs"], "1x1 and dense")
        if "vector_peak_gmacs" in row:
            peaks[row["vector_peak_gmacs"]] = "depthwise"
    if len(peaks) == 1:
        peaks = {value: "multiply-adds" for value in peaks}
    intensities = [_intensity(row) for row in rows]
    reached = [row["gmacs_per_second"] for row in rows]
    left, right = min(intensities) / 2, max([*intensities, *(peak / copy for peak in peaks)]) * 2
    corner = max(peaks, default=copy * right) / copy
    axes.plot([left, corner], [copy * left, copy * corner], color=INK, linewidth=1.2, zorder=1)
    for peak, name in peaks.items():
        axes.plot([peak / copy, right], [peak, peak], color=INK, linewidth=1.2, zorder=1)
        axes.annotate(
            f"{name} {peak:.0f}", (right, peak), xytext=(-2, 5 if peak == max(peaks) else -11),
            textcoords="offset points", fontsize=7.5, color=INK, ha="right", zorder=1,
        )  # fmt: skip
    start = left * (corner / left) ** 0.1
    axes.annotate(
        f"copy {copy:.0f} GB/s", (start, copy * start), xytext=(9, -2), textcoords="offset points", va="top",
        fontsize=7.5, color=INK, zorder=1,
    )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(min([*reached, copy * left]) / 2, max([*reached, *peaks]) * 2.2)
    axes.tick_params(which="minor", color=MUTED)


def _table(rows: Sequence[Row]) -> Table:
    """A line for each layer, the slowest against stock PyTorch first."""
    lines = []
    for line in lines_of(rows):
        first, ours, stock = line.first, line.ours, line.stock
        lines.append(
            [
                str(first["model"]).removeprefix("efficientnet_"),
                first["layer"],
                first["operator"],
                first["shape"],
                first["dtype"],
                str(first["batch"]),
                str(first["layers"]),
                number(1e3 * first["gmacs"]) if "gmacs" in first else "-",
                number(first["megabytes"]) if "megabytes" in first else "-",
                f"{_intensity(first):.2f}" if first.get("megabytes") and "gmacs" in first else "-",
                *_own_cells(line),
                stock["label"] if stock else "-",
                number(stock["median_ms"]) if stock else "-",
                ratio_text(line.ratio) if ours else "-",
            ]
        )
    headings = [
        "model", "layer", "operator", "shape", "dtype", "batch", "alike", "MMAC", "MB", "MAC/B", "ms",
        "GMAC/s", "GB/s", "of roof", "bound", "fastest stock", "ms", "vs stock",
    ]  # fmt: skip
    return Table(headings, lines, left=5)


def _own_cells(line: Line) -> list[str | Cell]:
    """Time, rates, share of the roofline and its binding limit; the status where there is no time."""
    if line.ours is None:
        return [status_cell(line.failed) if line.failed else "-", "", "", "", ""]
    row = line.ours
    rates = [number(row[name]) if name in row else "-" for name in ("gmacs_per_second", "gb_per_second")]
    time = Cell(number(row["median_ms"]), "ours")
    return [time, *rates, share_text(row.get("of_roof")), str(row.get("bound", "-"))]
