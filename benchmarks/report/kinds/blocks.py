"""MBConv blocks by themselves: every form of each, in the order of the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.block_tables import Case, cases_of, milliseconds, notes, summed
from benchmarks.blocks import OURS, STOCK
from benchmarks.ideal import share_text
from benchmarks.report import drawing
from benchmarks.report.exhibits import Cell, Exhibit, Panel, Style, Table, number, status_cell
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import Row, ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "eager": Style("#5f6b7a"),
    "compiled": Style("#3366cc"),
    "three-kernels": Style("#2a9d8f"),
    "mbconv": Style("#d1495b"),
}
LABELS = {**STOCK, **OURS}


def exhibits(results: Results) -> list[Exhibit]:
    """A panel for each batch and dtype."""
    cases = cases_of(results.rows)
    peers = [peer for peer in LABELS if any(peer in case for case in cases)]
    panels, lines = [], []
    for model, dtype, batch in dict.fromkeys(_setting(case) for case in cases):
        members = [case for case in cases if _setting(case) == (model, dtype, batch)]
        height = drawing.bars_height(len(members), len(peers))
        title = f"{str(model).removeprefix('efficientnet_')}, {dtype}, batch {batch}"
        panels.append(Panel(f"blocks-{model}-{dtype}-{batch}", title, partial(_draw, members, peers), height))
        for case in members:
            first = _first(case)
            named = [first["block"], first["shape"], dtype, str(batch), str(first["blocks"])]
            lines.append([*named, *_cells(case, peers)])
        count = sum(_first(case)["blocks"] for case in members)
        lines.append(["all blocks", "", dtype, str(batch), str(count), *_cells(summed(members), peers)])
    headings = ["block", "shape", "dtype", "batch", "alike", *(f"{LABELS[peer]}, ms" for peer in peers)]
    return [
        Exhibit(
            "Every block",
            "Milliseconds a call, the whole batch at a time.",
            panels,
            Table([*headings, "vs stock", "of peak"], lines, left=3),
            [(LABELS[peer], STYLES[peer]) for peer in peers],
            notes(results),
        )
    ]


def _first(case: Case) -> Row:
    return next(iter(case.values()))


def _setting(case: Case) -> tuple:
    first = _first(case)
    return first["model"], first["dtype"], first["batch"]


def _draw(cases: Sequence[Case], peers: Sequence[str], axes: Axes) -> None:
    series, texts = [], []
    for peer in peers:
        members = [case.get(peer) for case in cases]
        values = [row["median_ms"] if row and row["status"] == OK else None for row in members]
        series.append((STYLES[peer], values))
        texts.append(
            [
                number(value) if value is not None else str(row["status"] if row else "not measured")
                for value, row in zip(values, members, strict=True)
            ]
        )
    drawing.bars(axes, [str(_first(case)["block"]) for case in cases], series, texts)
    axes.set_xlabel("ms a call")


def _cells(case: Case, peers: Sequence[str]) -> list[str | Cell]:
    ours, stock = milliseconds(case, "mbconv"), milliseconds(case, *STOCK)
    over = None if ours is None or stock is None else stock / ours
    share = case["mbconv"].get("of_peak") if "mbconv" in case and ours is not None else None
    return [*(_time(case.get(peer)) for peer in peers), ratio_text(over), share_text(share)]


def _time(row: Row | None) -> str | Cell:
    if row is None:
        return "-"
    return number(row["median_ms"]) if row["status"] == OK else status_cell(row)
