"""The table of `benchmarks blocks`: a line for each block in the order of the network, and their sum."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from benchmarks.blocks import OURS, STOCK
from benchmarks.ideal import share_text
from benchmarks.results import Results
from benchmarks.tables import SHORT_DTYPES, Row, ratio_text

Case = dict[str, Row]  # rows of one case by peer


def cases_of(rows: Sequence[Row]) -> list[Case]:
    """Rows of each case by peer: batch by batch and dtype by dtype, blocks in the order of the network."""
    cases: dict[str, Case] = {}
    for row in rows:
        cases.setdefault(str(row["case"]), {})[str(row["peer"])] = row
    return sorted(cases.values(), key=lambda case: _setting(next(iter(case.values()))))


def _setting(row: Row) -> tuple:
    return (row["batch"], row["dtype"] != "float32", row["dtype"])


def milliseconds(case: Case, *peers: str) -> float | None:
    """Of the fastest of `peers` that has a time."""
    times = [case[peer]["median_ms"] for peer in peers if peer in case and case[peer]["status"] == "ok"]
    return min(times, default=None)


def summed(cases: Sequence[Case]) -> Case:
    """One case whose times are those of all blocks, each as often as the network has it; a peer that lacks a
    time somewhere has none.
    """
    total: Case = {}
    for peer in cases[0]:
        rows = [case[peer] for case in cases]
        complete = all(row["status"] == "ok" for row in rows)
        ideals = [row["ideal_ms"] for row in rows]
        known = complete and None not in ideals
        total[peer] = {
            "status": "ok" if complete else "-",
            "median_ms": sum(row["median_ms"] * row["blocks"] for row in rows) if complete else None,
            "ideal_ms": sum(row["ideal_ms"] * row["blocks"] for row in rows) if known else None,
            "gmacs": sum(row["gmacs"] * row["blocks"] for row in rows),
        }
        if known:
            total[peer]["of_peak"] = total[peer]["ideal_ms"] / total[peer]["median_ms"]
    return total


def blocks_table(results: Results) -> Table:
    """Milliseconds of every form, the best of ours against the others, and its share of the peak."""
    rows = results.rows
    table = Table(
        title=f"milliseconds a call, {results.environment['cpu']}, {results.environment['threads']} threads",
        caption="vs stock: one kernel over the fastest stock form; vs three: over our three kernels; GMAC/s "
        "and of peak: of one kernel",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    peers = [peer for peer in {**STOCK, **OURS} if any(row["peer"] == peer for row in rows)]
    labels = {**STOCK, **OURS}
    table.add_column("block", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    for heading in ("blocks", "batch", "dtype", *(labels[peer] for peer in peers), "vs stock", "vs three",
                    "GMAC/s", "ideal ms", "of peak"):  # fmt: skip
        table.add_column(heading, justify="right")
    cases = cases_of(rows)
    settings = {_setting(next(iter(case.values()))): None for case in cases}
    for setting in settings:
        members = [case for case in cases if _setting(next(iter(case.values()))) == setting]
        for case in members:
            first = next(iter(case.values()))
            named = (first["block"], first["shape"], str(first["blocks"]))
            table.add_row(*named, str(first["batch"]), SHORT_DTYPES[first["dtype"]], *_cells(case, peers))
        first = next(iter(members[0].values()))
        count = sum(next(iter(case.values()))["blocks"] for case in members)
        named = ("all blocks", "", str(count), str(first["batch"]), SHORT_DTYPES[first["dtype"]])
        table.add_row(*named, *_cells(summed(members), peers))
        table.add_section()
    return table


def _cells(case: Case, peers: Sequence[str]) -> list[str]:
    ours, three = milliseconds(case, "mbconv"), milliseconds(case, "three-kernels")
    row = case["mbconv"]
    rate = None if ours is None else row["gmacs"] / ours * 1e3
    ideal = row.get("ideal_ms")
    return [
        *(_time_text(case, peer) for peer in peers),
        ratio_text(_over(milliseconds(case, *STOCK), ours)),
        ratio_text(_over(three, ours)),
        "-" if rate is None else f"{rate:.1f}",
        "-" if ideal is None else f"{ideal:.3f}",
        share_text(row.get("of_peak")),
    ]


def _over(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours


def _time_text(case: Case, peer: str) -> str:
    row = case.get(peer)
    if row is None:
        return "-"
    return f"{row['median_ms']:.3f}" if row["status"] == "ok" else str(row["status"])


def notes(results: Results) -> list[str]:
    """Sentences below the table: why somebody has no time."""
    reasons: dict[str, int] = {}
    for row in results.rows:
        if row["status"] != "ok":
            reason = f"{row['label']}: {row['status']}: {row['reason']}"
            reasons[reason] = reasons.get(reason, 0) + 1
    return [f"{reason} ({count} blocks)" for reason, count in reasons.items()]
