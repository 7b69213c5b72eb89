"""Peaks of activation memory: eager PyTorch, the three-kernel plan, the engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report import drawing
from benchmarks.report.exhibits import OURS, STOCK, Cell, Exhibit, Panel, Style, Table, status_cell
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"eager": Style(STOCK), "three-kernel": Style("#2a9d8f"), "engine": Style(OURS)}
SPARE = Style("#7b4ea3")

MIB = 2**20


def exhibits(results: Results) -> list[Exhibit]:
    """A panel for each network and dtype, a group of bars for each batch."""
    rows = results.rows
    labels = {str(row["peer"]): str(row["label"]) for row in rows}
    panels = []
    for model, dtype in dict.fromkeys((row["model"], row["dtype"]) for row in rows):
        members = [row for row in rows if (row["model"], row["dtype"]) == (model, dtype)]
        batches = len({row["batch"] for row in members})
        title = f"{str(model).removeprefix('efficientnet_')} @{members[0]['image_size']}, {dtype}"
        height = drawing.bars_height(batches, len(labels))
        draw = partial(_draw, members, list(labels))
        panels.append(Panel(f"memory-{model}-{dtype}", title, draw, height))
    return [
        Exhibit(
            "Peak of activation memory",
            "What a call keeps and allocates besides weights, in MiB, and its share of eager PyTorch's peak.",
            panels,
            _table(rows, labels),
            [(label, STYLES.get(peer, SPARE)) for peer, label in labels.items()],
            [f"{r['label']}, {r['case']}: {r['status']}: {r['reason']}" for r in rows if r["status"] != OK],
        )
    ]


def _draw(rows: Sequence[Row], peers: Sequence[str], axes: Axes) -> None:
    batches = sorted({row["batch"] for row in rows})
    found = {(row["batch"], row["peer"]): row for row in rows}
    series, texts = [], []
    for peer in peers:
        members = [found.get((batch, peer)) for batch in batches]
        values = [row["activation_bytes"] / MIB if row and row["status"] == OK else None for row in members]
        series.append((STYLES.get(peer, SPARE), values))
        texts.append([_text(row) for row in members])
    drawing.bars(axes, [f"batch {batch}" for batch in batches], series, texts)
    axes.set_xlabel("MiB")


def _text(row: Row | None) -> str:
    if row is None:
        return "not measured"
    if row["status"] != OK:
        return str(row["status"])
    share = f", {row['ratio']:.0%}" if "ratio" in row and row["peer"] != "eager" else ""
    return f"{row['activation_bytes'] / MIB:.1f}{share}"


def _table(rows: Sequence[Row], labels: dict[str, str]) -> Table:
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(str(row["case"]), {})[str(row["peer"])] = row
    lines: list[list[str | Cell]] = []
    for forms in cases.values():
        first = next(iter(forms.values()))
        line: list[str | Cell] = [
            f"{first['model']} @{first['image_size']}",
            first["dtype"],
            str(first["batch"]),
        ]
        for peer in labels:
            row = forms.get(peer)
            if row is not None and row["status"] != OK:
                line += [status_cell(row), ""]
            else:
                line += ["-", ""] if row is None else [f"{row['activation_bytes'] / MIB:.2f}", _share(row)]
        lines.append(line)
    headings = ["model", "dtype", "batch"]
    for label in labels.values():
        headings += [f"{label}, MiB", "share"]
    return Table(headings, lines, left=2)


def _share(row: Row) -> str:
    return f"{row['ratio']:.1%}" if "ratio" in row else "-"
