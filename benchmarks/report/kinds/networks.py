"""Sweeps and suites: throughput across phi with every peer, speed-ups over PyTorch and the runtimes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.plots import asked_batch
from benchmarks.report import drawing
from benchmarks.report.exhibits import (
    OURS,
    Cell,
    Exhibit,
    Panel,
    Style,
    Table,
    legend_of,
    status_cell,
    style_of,
)
from benchmarks.results import Results
from benchmarks.tables import (
    NOISY_SPREAD,
    STOCK,
    Row,
    best,
    cases_of,
    floor_text,
    is_ours,
    labels_of,
    memory_ratio,
    model_text,
    notes,
    ratio,
    ratio_text,
    ratios_of,
    shown_rows,
    speed,
    speed_text,
)
from benchmarks.targets import target_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Groups of peers that are PyTorch; every other one that is not ours is a runtime of its own.
PYTORCH = ("eager", "tuned", "graph", "plain", "compiled")

OVER_PYTORCH = ("over the best of PyTorch", Style("#3366cc"))
OVER_RUNTIMES = ("over the fastest runtime", Style("#7b4ea3"))


def exhibits(results: Results) -> list[Exhibit]:
    """Throughput where there are at least two phi, and speed-ups where the engine has a time."""
    return [exhibit for exhibit in (_throughput(results), _speed_ups(results)) if exhibit.panels]


def _throughput(results: Results) -> Exhibit:
    rows = [row for row in results.rows if row.get("phi") is not None]
    shown = list(shown_rows(rows))
    timed = [row for row in shown if speed(row) is not None]
    labels = labels_of(timed)
    settings = sorted(
        {(row["dtype"], asked_batch(row)) for row in timed}, key=lambda s: (s[0] != "float32", s)
    )
    panels = []
    for dtype, batch in settings:
        members = [row for row in timed if (row["dtype"], asked_batch(row)) == (dtype, batch)]
        if len({row["phi"] for row in members}) > 1:
            name, title = f"phi-{dtype}-{batch}", f"{dtype}, {_images(batch)}"
            panels.append(Panel(name, title, partial(_draw_throughput, members, labels), 3.3))
    return Exhibit(
        "Throughput across phi",
        "Images per second, each variant at its own resolution. The scale of the speed is logarithmic: equal "
        "factors are equal distances.",
        panels,
        _speeds_table(rows),
        legend_of(labels),
    )


def _images(batch: int) -> str:
    return "one image" if batch == 1 else f"{batch} images"


def _draw_throughput(rows: Sequence[Row], labels: dict[str, str], axes: Axes) -> dict[str, str]:
    texts = {}
    for place, (peer, label) in enumerate(labels.items()):
        points = sorted((row for row in rows if row["peer"] == peer), key=lambda row: row["phi"])
        if not points:
            continue
        style, ours = style_of(peer, labels), peer == "engine"
        x, y = [row["phi"] for row in points], [speed(row) for row in points]
        (line,) = axes.plot(
            x, y, color=style.colour, marker=style.marker, linestyle=style.dash,
            markersize=8 if ours else 4.5, linewidth=2.2 if ours else 1.3, zorder=3 if ours else 2,
        )  # fmt: skip
        line.set_gid(f"line{place}")
        texts[f"line{place}"] = f"{label}: " + ", ".join(
            f"{model_text(row)} {speed_text(row)}" for row in points
        )
        if ours:
            for phi, value, row in zip(x, y, points, strict=True):
                axes.annotate(
                    speed_text(row).split(".")[0] if value >= 10 else speed_text(row), (phi, value),
                    xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7.5, color=style.colour,
                )  # fmt: skip
    axes.set_yscale("log")
    drawing.log_ticks(axes.yaxis)
    axes.margins(x=0.08, y=0.14)
    phis = sorted({row["phi"] for row in rows})
    of_formula = any("_phi" in str(row["model"]) for row in rows)
    whole = [phi for phi in phis if float(phi).is_integer()] or phis
    axes.set_xticks(whole, [f"{phi:g}" if of_formula else f"B{phi:g}" for phi in whole])
    axes.set_xlabel("phi")
    axes.set_ylabel("images/s")
    axes.grid(True)
    return texts


def over(rows: Sequence[Row], groups: Callable[[str], bool]) -> float | None:
    """Speed of the engine over the fastest of the groups that `groups` takes; None where one is missing."""
    ours = best(rows, "engine")
    theirs = [speed(row) for row in rows if not is_ours(row) and groups(str(row["group"]))]
    fastest = max((value for value in theirs if value is not None), default=None)
    return None if ours is None or fastest is None else ours / fastest


def _is_pytorch(group: str) -> bool:
    return group in PYTORCH


def _is_runtime(group: str) -> bool:
    return group not in PYTORCH


def _speed_ups(results: Results) -> Exhibit:
    cases = [case for case in cases_of(results.rows).values() if best(case, "engine") is not None]
    runtimes = any(_is_runtime(str(row["group"])) and not is_ours(row) for case in cases for row in case)
    panels = []
    dtypes = sorted({str(case[0]["dtype"]) for case in cases}, key=lambda name: (name != "float32", name))
    for dtype in dtypes:
        for single in (True, False):
            members = [
                case for case in cases if case[0]["dtype"] == dtype and (case[0]["batch"] == 1) == single
            ]
            if members:
                title = f"{dtype}, {'one image' if single else 'several images'}"
                height = drawing.bars_height(len(members), 2 if runtimes else 1)
                draw = partial(_draw_speed_ups, members, runtimes)
                name = f"speed-up-{dtype}-{'one' if single else 'several'}"
                panels.append(Panel(name, title, draw, height))
    return Exhibit(
        "Speed-up",
        "effnet_fast's images per second over those of the fastest other: 1 is the same speed, and left of "
        "the line it is slower.",
        panels,
        _ratios_table(results),
        [OVER_PYTORCH, OVER_RUNTIMES] if runtimes else [OVER_PYTORCH],
        [*_summary(results), *target_lines(results), *notes(results)],
    )


def _draw_speed_ups(cases: Sequence[list[Row]], runtimes: bool, axes: Axes) -> None:
    chosen = [(OVER_PYTORCH[1], _is_pytorch), *([(OVER_RUNTIMES[1], _is_runtime)] if runtimes else [])]
    series, texts = [], []
    for style, groups in chosen:
        values = [over(case, groups) for case in cases]
        series.append((style, values))
        texts.append(
            [
                f"{value:.2f}" if value is not None else _why_none(case, groups)
                for case, value in zip(cases, values, strict=True)
            ]
        )
    drawing.bars(axes, [_case_text(case[0]) for case in cases], series, texts)
    axes.axvline(1.0, color=OURS, linewidth=1.2, zorder=1)
    axes.set_xlabel("times the other's speed")


def _why_none(case: Sequence[Row], groups: Callable[[str], bool]) -> str:
    """Statuses of the peers of which none has a time; that a group was not asked for, where it has no row."""
    statuses = {str(row["status"]) for row in case if not is_ours(row) and groups(str(row["group"]))}
    return ", ".join(sorted(statuses)) or "not measured"


def _case_text(row: Row) -> str:
    name = model_text(row).split(" @")[0].removeprefix("efficientnet_").removeprefix("efficientnet")
    return name if row["batch"] == 1 else f"{name} ×{row['batch']}"


def _summary(results: Results) -> list[str]:
    """The geometric mean of the ratios over the best of all others, with the least and the largest."""
    found = [ratio(case, STOCK) for case in cases_of(results.rows).values()]
    ratios = [value for value in found if value is not None]
    if not ratios:
        return []
    product = 1.0
    for value in ratios:
        product *= value ** (1 / len(ratios))
    slower = sum(value < 1 for value in ratios)
    return [
        f"Over the best of all others: {product:.2f}x in the geometric mean of {len(ratios)} cases, from "
        f"{min(ratios):.2f}x to {max(ratios):.2f}x; slower than it in {slower}."
    ]


def _speeds_table(rows: Sequence[Row]) -> Table:
    return _table(rows, ())


def _ratios_table(results: Results) -> Table:
    return _table(results.rows, ratios_of(results.rows))


def _table(rows: Sequence[Row], ratios: Collection[tuple[str, str, str]]) -> Table:
    """A line for each case with every peer's images per second, and the ratios if there are any."""
    labels = labels_of(rows)
    headings = ["model", "dtype", "batch", *labels.values(), *(heading for heading, _, _ in ratios)]
    floors = bool(ratios) and any("of_floor" in row for row in rows)
    lines: list[list[str | Cell]] = []
    for case in cases_of(rows).values():
        first, by_peer = case[0], {row["peer"]: row for row in case}
        line: list[str | Cell] = [model_text(first), first["dtype"], f"{first['batch']}"]
        line += [_speed_cell(by_peer.get(peer)) for peer in labels]
        line += [ratio_text(ratio(case, group, ours)) for _, group, ours in ratios]
        if ratios:
            line.append(ratio_text(memory_ratio(case)))
        if floors:
            line.append(floor_text(case))
        lines.append(line)
    headings += ["memory"] * bool(ratios) + ["of floor"] * floors
    return Table(headings, lines, left=2)


def _speed_cell(row: Row | None) -> str | Cell:
    if row is None:
        return "-"
    if speed(row) is None:
        return status_cell(row)
    noise = f" ±{50 * row['spread']:.0f}%" if row.get("spread", 0.0) > NOISY_SPREAD else ""
    return Cell(f"{speed_text(row)}{noise}", "ours" if row["group"] == "engine" else "")
