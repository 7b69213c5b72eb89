"""Single calls: latency against batch with the 20th and 80th percentile of all calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report import drawing
from benchmarks.report.exhibits import Cell, Exhibit, Panel, Table, legend_of, number, status_cell, style_of
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import Row, cases_of, labels_of, model_text, notes, ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("median_ms", "p20_ms", "p80_ms", "p99_ms")


def exhibits(results: Results) -> list[Exhibit]:
    """A panel for each network and dtype: a curve for each peer, or bars where there is one batch."""
    timed = [row for row in results.rows if row["status"] == OK]
    labels = labels_of(timed)
    panels = []
    settings = list(dict.fromkeys((row["model"], row["image_size"], row["dtype"]) for row in timed))
    for model, size, dtype in settings:
        rows = [
            row for row in timed if (row["model"], row["image_size"], row["dtype"]) == (model, size, dtype)
        ]
        title = f"{model_text(rows[0])}, {dtype}"
        name = f"latency-{model}-{size}-{dtype}"
        if len({row["batch"] for row in rows}) > 1:
            panels.append(Panel(name, title, partial(_draw_curves, rows, labels), 3.3))
        else:
            height = drawing.bars_height(len(rows), 1) + 0.2
            panels.append(Panel(name, title, partial(_draw_bars, rows, labels), height))
    return (
        [
            Exhibit(
                "Latency against batch",
                "Milliseconds from an idle device until the logits are there, host overhead included. Lines "
                "are medians over all calls of all rounds, bands and whiskers go from the 20th to the 80th "
                "percentile. Host, us: what a call of effnet_fast costs without its kernels.",
                panels,
                _table(results.rows),
                legend_of(labels),
                notes(results),
            )
        ]
        if panels
        else []
    )


def _draw_curves(rows: Sequence[Row], labels: dict[str, str], axes: Axes) -> dict[str, str]:
    texts = {}
    for place, (peer, label) in enumerate(labels.items()):
        points = sorted((row for row in rows if row["peer"] == peer), key=lambda row: row["batch"])
        if not points:
            continue
        style, ours = style_of(peer, labels), peer == "engine"
        x = [row["batch"] for row in points]
        axes.fill_between(
            x, [row["p20_ms"] for row in points], [row["p80_ms"] for row in points], color=style.colour,
            alpha=0.18, linewidth=0,
        )  # fmt: skip
        (line,) = axes.plot(
            x, [row["median_ms"] for row in points], color=style.colour, marker=style.marker,
            linestyle=style.dash, markersize=8 if ours else 4.5, linewidth=2.2 if ours else 1.3,
        )  # fmt: skip
        line.set_gid(f"line{place}")
        texts[f"line{place}"] = f"{label}: " + ", ".join(
            f"batch {row['batch']} {number(row['median_ms'])} ms" for row in points
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    batches = sorted({row["batch"] for row in rows})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    drawing.log_ticks(axes.yaxis)
    axes.set_xlabel("images per call")
    axes.set_ylabel("ms a call")
    axes.grid(True)
    return texts


def _draw_bars(rows: Sequence[Row], labels: dict[str, str], axes: Axes) -> None:
    """One bar each, in the peer's own colour."""
    order = list(labels)
    drawing.single_bars(
        axes,
        [
            drawing.Bar(
                str(row["label"]),
                row["median_ms"],
                f"{number(row['median_ms'])} ms",
                style_of(row["peer"], labels).colour,
                (row["p20_ms"], row["p80_ms"]),
            )
            for row in sorted(rows, key=lambda row: order.index(row["peer"]))
        ],
    )
    axes.set_xlabel(f"ms a call, batch {rows[0]['batch']}")


def _table(rows: Sequence[Row]) -> Table:
    lines: list[list[str | Cell]] = []
    for case in cases_of(rows).values():
        ours = next((row for row in case if row["peer"] == "engine" and row["status"] == OK), None)
        for row in case:
            timed = row["status"] == OK
            line: list[str | Cell] = [model_text(row), row["dtype"], row["label"], str(row["batch"])]
            line += [number(row[name]) for name in COLUMNS] if timed else [status_cell(row), "", "", ""]
            over = row["median_ms"] / ours["median_ms"] if timed and ours else None
            host = f"{row['host_us']:.0f}" if timed and "host_us" in row else ""
            line += [str(row["calls"]) if timed else "", ratio_text(over), host]
            lines.append(line)
    headings = [
        "model", "dtype", "peer", "batch", "median ms", "p20", "p80", "p99", "calls", "of effnet_fast's",
        "host, us",
    ]  # fmt: skip
    return Table(headings, lines, left=3)
