"""The table of `benchmarks fuse --alone`: what single layers gain or lose, and whether the rule knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table

from benchmarks.fuse import EAGER, FUSED
from benchmarks.fuse_alone import LEAVE
from benchmarks.fuse_tables import Case, cases_of, gain, is_slower
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import SHORT_DTYPES, place_text, ratio_text

#: What "rule agrees" says of a layer.
VERDICTS = AGREES, DISAGREES, LEVEL, OPEN = "yes", "NO", "level", "open"


def is_faster(case: Case) -> bool:
    """Whether the fused layer is faster than eager, by more than the spread of the rounds."""
    return gain(case, EAGER) is not None and case[FUSED]["p80_ms"] < case[EAGER]["p20_ms"]


def contradicts(case: Case) -> bool:
    """Whether this dtype and layout by itself asks for the other decision, by more than the spread."""
    return is_faster(case) if _first(case)["rule"] == LEAVE else is_slower(case)


def agreement(cases: Sequence[Case]) -> str:
    """Whether the times of one layer ask for what the rule decides: to fuse what loses nowhere.

    The rule knows neither dtype nor layout, so one loss beyond the spread of the rounds is enough to leave a
    layer alone. "level" is a layer left alone that neither loses nor gains anywhere, beyond the spread.
    """
    leaves = _first(cases[0])["rule"] == LEAVE
    if any(map(is_slower, cases)):
        return AGREES if leaves else DISAGREES
    if any(gain(case, EAGER) is None for case in cases):
        return OPEN
    if leaves:
        return DISAGREES if any(map(is_faster, cases)) else LEVEL
    return AGREES


def alone_table(results: Results) -> Table:
    """A line for each layer: milliseconds eager and fused for each dtype and layout, and the rule."""
    table = Table(
        title=f"milliseconds a call, eager / fused, batch {results.rows[0]['batch']}, "
        f"{place_text(results.environment)}",
        caption="*: by itself this figure asks for the other decision, beyond the spread of the rounds; "
        "rule agrees: it fuses what is slower in no column, and leaves alone what is slower in one",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    columns = dict.fromkeys((str(row["dtype"]), str(row["layout"])) for row in results.rows)
    table.add_column("by itself")
    for dtype, layout in columns:
        table.add_column(f"{SHORT_DTYPES[dtype]} {layout}", justify="right")
    for heading in ("rule", "rule agrees"):
        table.add_column(heading)
    for layer, cases in _layers(results).items():
        by_column = {(_first(case)["dtype"], _first(case)["layout"]): case for case in cases}
        table.add_row(
            layer,
            *(_cell(by_column[column]) if column in by_column else "-" for column in columns),
            str(_first(cases[0])["rule"]),
            agreement(cases),
        )
    return table


def alone_notes(results: Results) -> list[str]:
    """Why somebody has no time, the layers that the rule decides otherwise than their times, and how many."""
    lines = [
        f"{row['label']}, {row['case']}: {row['status']}: {row['reason']}"
        for row in results.rows
        if row["status"] != OK
    ]
    layers = _layers(results)
    verdicts = {layer: agreement(cases) for layer, cases in layers.items()}
    for layer, cases in layers.items():
        if verdicts[layer] == DISAGREES:
            gains = ", ".join(f"{_column(case)} {ratio_text(gain(case, EAGER))}" for case in cases)
            lines.append(f"the rule disagrees, {layer}: {_first(cases[0])['rule']}, fused over eager {gains}")
    counts = Counter(verdicts.values())
    said = ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
    marked = sum(contradicts(case) for cases in layers.values() for case in cases)
    return [*lines, f"{len(layers)} layers, rule agrees: {said}; figures marked *: {marked}"]


def _layers(results: Results) -> dict[str, list[Case]]:
    """Cases of each layer, in the order of the file."""
    layers: dict[str, list[Case]] = {}
    for case in cases_of(results.rows):
        layers.setdefault(str(_first(case)["layer"]), []).append(case)
    return layers


def _first(case: Case) -> dict[str, object]:
    return next(iter(case.values()))


def _column(case: Case) -> str:
    first = _first(case)
    return f"{SHORT_DTYPES[first['dtype']]} {first['layout']}"


def _cell(case: Case) -> str:
    rows = [case.get(EAGER), case.get(FUSED)]
    times = " / ".join(
        "-" if row is None else f"{row['median_ms']:.3f}" if row["status"] == OK else str(row["status"])
        for row in rows
    )
    value = gain(case, EAGER)
    return times + ("" if value is None else f" {ratio_text(value)}") + ("*" if contradicts(case) else " ")
