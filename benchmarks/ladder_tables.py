"""The table of `benchmarks ops --ladder`, on a terminal and in docs/kernels.md: a line for each rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.ladder import RUNGS
from benchmarks.results import Results
from benchmarks.rows import OK, UNAVAILABLE
from benchmarks.tables import SHORT_DTYPES, Row, place_text, ratio_text

COLUMNS = ("rung", "us an image", "p20 to p80", "x the one before", "x eager", "kB an image", "of the floor")


@dataclass(frozen=True)
class Rung:
    """A rung with a row, and its speed over the nearest rung before it that has a time, and over the first.

    None where one of the two has no time.
    """

    row: Row
    over_before: float | None
    over_eager: float | None


def rungs_of(rows: Sequence[Row]) -> list[Rung]:
    """`rows` of one case in the order of the ladder."""
    order = list(RUNGS)
    rungs: list[Rung] = []
    eager = before = None
    for row in sorted(rows, key=lambda row: order.index(str(row["peer"]))):
        taken = row["median_us"] if row["status"] == OK else None
        if row["peer"] == order[0]:
            eager = taken
        over = [None if taken is None or other is None else other / taken for other in (before, eager)]
        rungs.append(Rung(row, *over))
        before = before if taken is None else taken
    return rungs


def title(results: Results, between: str = ", ") -> str:
    """The block, what it is made of, and where it was measured, with `between` in between."""
    row = results.rows[0]
    setting = f"batch {row['batch']}, {SHORT_DTYPES[row['dtype']]}"
    return (
        f"{row['model']} {row['block']}: {row['shape']}, {setting}{between}{place_text(results.environment)}"
    )


def lines(results: Results) -> list[list[str]]:
    """Cells of every rung, and of the floor below them."""
    found = [_cells(rung) for rung in rungs_of(results.rows)]
    row = results.rows[0]
    if "floor_us" in row:
        least = row["floor_us"]
        eager = [r["median_us"] for r in results.rows if r["peer"] == "eager" and r["status"] == OK]
        over = ratio_text(eager[0] / least if eager else None)
        cells = [f"floor: {row['floor_bound']}", _us(least), "", "", over, _kilobytes(row["floor_bytes"]), ""]
        found.append(cells)
    return found


def _cells(rung: Rung) -> list[str]:
    row, shown = rung.row, [str(rung.row["label"])]
    moved = _kilobytes(row.get("bytes_per_image"))
    if row["status"] != OK:
        return [*shown, why_not(row), "", "", "", moved, ""]
    return [
        *shown,
        _us(row["median_us"]),
        f"{_us(row['p20_us'])} to {_us(row['p80_us'])}",
        ratio_text(rung.over_before),
        ratio_text(rung.over_eager),
        moved,
        f"{row['of_floor']:.0%}",
    ]


def why_not(row: Row) -> str:
    """What stands in the place of the time of a rung without one."""
    return str(row["reason"]).partition(":")[0] if row["status"] == UNAVAILABLE else str(row["status"])


def _us(microseconds: float) -> str:
    decimals = 2 if microseconds < 10 else 1 if microseconds < 1000 else 0
    return f"{microseconds:,.{decimals}f}"


def _kilobytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e3:,.0f}"


def ladder_table(results: Results) -> Table:
    """One line for each rung, from stock eager PyTorch to the floor."""
    table = Table(title=title(results, "\n"), title_justify="left", box=box.SIMPLE_HEAD)
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
    for cells in lines(results):
        if cells[0].startswith("floor"):
            table.add_section()
        table.add_row(*cells)
    return table


def floor_text(results: Results) -> str:
    """What the floor is made of; empty where nothing was measured."""
    row = results.rows[0]
    if "floor_us" not in row:
        return ""
    rate = results.environment["limits"]["copy_bytes_per_second"] / 1e9
    moved = _us(row["floor_memory_us"])
    memory = f"{moved} us for the block's input and output at the {rate:.1f} GB/s of a copy"
    if row["floor_arithmetic_us"] is None:
        return f"floor: {memory}; arithmetic unknown, for the library that measures the peaks is missing"
    at = "the peaks of this CPU's registers" if row["device"] == "cpu" else "the best rates of kernels here"
    arithmetic = f"{_us(row['floor_arithmetic_us'])} us for its multiply-adds, SiLU and sigmoid at {at}"
    return f"floor: the larger of {memory} and {arithmetic}"


def notes(results: Results) -> list[str]:
    """Sentences below the table: what the floor is, and why a rung has no time."""
    found = [floor_text(results)] if floor_text(results) else []
    return found + [
        f"{row['label']}: {row['status']}: {row['reason']}" for row in results.rows if row["status"] != OK
    ]


def markdown(results: Results) -> str:
    """The table with its title above, and below it the floor, the versions and the command."""
    environment = results.environment
    table = [
        "| " + " | ".join(COLUMNS) + " |",
        "|---|" + "--:|" * (len(COLUMNS) - 1),
        *("| " + " | ".join(cells) + " |" for cells in lines(results)),
    ]
    below = (
        f"torch {environment['libraries']['torch']}, {environment['date']}, commit "
        f"{environment['commit'] or 'unknown'}; `{results.command}`."
    )
    said = floor_text(results)
    said = f"{said[0].upper()}{said[1:]}; " if said else ""
    return "\n".join([f"**{title(results)}**", "", *table, "", f"{said}{below}"])
