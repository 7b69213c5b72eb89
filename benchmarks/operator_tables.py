"""The table of `benchmarks ops`: a line for each layer, the worst against stock PyTorch first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.ideal import share_text
from benchmarks.results import Results
from benchmarks.tables import SHORT_DTYPES, Row, ratio_text

#: A screenful or two: what is left out is the best, and in the file.
MOST_LINES = 80


@dataclass(frozen=True)
class Line:
    """The rows of one case, reduced: this project's fastest backend against the fastest stock form."""

    first: Row
    ours: Row | None
    stock: Row | None
    failed: Row | None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is; None where one has no time."""
        if self.ours is None or self.stock is None:
            return None
        return self.stock["median_ms"] / self.ours["median_ms"]

    @property
    def order(self) -> float:
        """Failures first, then the slowest, then those without a comparison."""
        if self.failed is not None:
            return -1.0
        return math.inf if self.ratio is None else self.ratio


def _fastest(rows: Iterable[Row]) -> Row | None:
    return min((row for row in rows if row["status"] == "ok"), key=lambda row: row["median_ms"], default=None)


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """One line for each case, the worst first."""
    cases: dict[str, list[Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    lines = []
    for members in cases.values():
        ours = [row for row in members if row["group"] == "ours"]
        failed = next((row for row in ours if row["status"] != "ok"), None)
        stock = _fastest(row for row in members if row["group"] == "stock")
        lines.append(Line(members[0], _fastest(ours), stock, failed))
    return sorted(lines, key=lambda line: line.order)


def _milliseconds(row: Row | None) -> str:
    return (
        "-"
        if row is None
        else f"{row['median_ms']:.4f}"
        if row["median_ms"] < 1
        else f"{row['median_ms']:.2f}"
    )


def operators_table(results: Results) -> Table:
    """At most `MOST_LINES` lines: time, bandwidth, and the speed against the best stock form."""
    lines = lines_of(results.rows)
    table = Table(
        title=f"milliseconds a call, {results.environment['gpu'] or results.environment['cpu']}",
        caption="of copy: share of the bandwidth of a plain copy, by what the operator must read and write; "
        "of roof: of what bytes at that bandwidth or arithmetic at its peak allow, whichever is less; "
        "vs stock: speed against the fastest of eager channels_last and torch.compile",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("model", "layer", "shape"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "layers",
        "batch",
        "dtype",
        "by",
        "ms",
        "GB/s",
        "of copy",
        "of roof",
        "stock",
        "ms",
        "vs stock",
    ):
        table.add_column(heading, justify="right")
    for line in lines[:MOST_LINES]:
        first, ours, stock = line.first, line.ours, line.stock
        verdict = ratio_text(line.ratio) if line.failed is None else line.failed["status"]
        table.add_row(
            str(first["model"]).removeprefix("efficientnet_"),
            first["layer"],
            first["shape"],
            str(first["layers"]),
            str(first["batch"]),
            SHORT_DTYPES[first["dtype"]],
            ours["peer"] if ours else "-",
            _milliseconds(ours),
            f"{ours['gb_per_second']:.1f}" if ours else "-",
            f"{ours['copy_share']:.0%}" if ours else "-",
            share_text(ours.get("of_roof") if ours else None),
            stock["peer"] if stock else "-",
            _milliseconds(stock),
            verdict,
        )
    return table


def notes(results: Results) -> list[str]:
    """Sentences below the table: what was left out, what is slower, and why somebody has no time."""
    lines = lines_of(results.rows)
    ratios = [line.ratio for line in lines if line.ratio is not None]
    found = []
    if len(lines) > MOST_LINES:
        found.append(
            f"{len(lines) - MOST_LINES} further lines are in the file, none worse than the last one above"
        )
    if ratios:
        slower = sum(ratio < 1 for ratio in ratios)
        found.append(f"slower than the best stock form: {slower} of {len(ratios)} calls")
    reasons: dict[str, int] = {}
    for row in results.rows:
        if row["status"] != "ok":
            reason = f"{row['label']}: {row['status']}: {row['reason']}"
            reasons[reason] = reasons.get(reason, 0) + 1
    found += [f"{reason} ({count} calls)" for reason, count in list(reasons.items())[:10]]
    return found
