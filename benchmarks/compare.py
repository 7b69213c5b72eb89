"""Two sets of rows against each other: which pairs differ, which are equal, and who has no partner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.results import ResultError, Results
from benchmarks.rows import OK
from benchmarks.tables import SHORT_DTYPES, is_ours
from effnet_fast.measure import Difference, compare_times, differences

Row = dict[str, object]

#: What a row needs to be compared; kinds of result files without it hold something else than such times.
TIMES = ("median_ms", "p20_ms", "p80_ms", "rounds")

#: Instead of the name of a peer: in each case that of somebody else whose rounds vary least.
STEADIEST = "steadiest"


@dataclass(frozen=True)
class RowTimes:
    """The times of a row: milliseconds a call, or with `against` over those of another peer (a share)."""

    median: float
    p20: float
    p80: float
    rounds: int


@dataclass(frozen=True)
class Pair:
    """The rows of one case and peer on both sides. `difference` is None where either has no time.

    `measures` are the rows that their times were divided by, where they were.
    """

    first: Row
    second: Row
    difference: Difference | None
    measures: tuple[Row | None, Row | None] = (None, None)


@dataclass(frozen=True)
class Comparison:
    """`pairs` in the order of the first side, and the rows that only one side has."""

    pairs: list[Pair]
    only_first: list[Row]
    only_second: list[Row]


def compare_rows(
    first: Sequence[Row], second: Sequence[Row], *, floor: float, against: str | None = None
) -> Comparison:
    """Hold the rows of `second` against those of `first` with the same case and peer.

    Args:
        first, second: rows of result files.
        floor: see `effnet_fast.measure.compare_times`.
        against: name of a peer. Each time is divided by that peer's in the same case of the same side, which
            had the same slow and quick minutes, and the peer's own rows are left out. `STEADIEST`: by that of
            `controls`, and this project's rows alone are compared.

    Raises:
        ResultError: rows that have no times of rounds, or no side has a row of the peer `against`.
    """
    sides = [{_key(row): row for row in rows} for rows in (first, second)]
    for side in sides:
        for row in side.values():
            if row.get("status") == OK and any(name not in row for name in TIMES):
                raise ResultError(
                    "these results hold no times of rounds, which is what compare holds together"
                )
    measures: list[dict[object, Row]] = [{}, {}]
    if against == STEADIEST:
        chosen = controls(*sides)
        measures = [{case: side[case, peer] for case, peer in chosen.items()} for side in sides]
        sides = [{key: row for key, row in side.items() if is_ours(row)} for side in sides]
    elif against is not None:
        measures = [{row["case"]: row for row in side.values() if row["peer"] == against} for side in sides]
        if not all(measures):
            known = sorted({str(row["peer"]) for side in sides for row in side.values()})
            raise ResultError(f"--against: {against!r} is not in both; the peers are {', '.join(known)}")
        sides = [{key: row for key, row in side.items() if row["peer"] != against} for side in sides]
    one, other = sides
    pairs = []
    for key, row in one.items():
        if key in other:
            by = tuple(measure.get(row["case"]) for measure in measures)
            times = [
                _times(found, measure, against) for found, measure in zip((row, other[key]), by, strict=True)
            ]
            known = None not in times
            pairs.append(Pair(row, other[key], compare_times(*times, floor=floor) if known else None, by))
    return Comparison(
        pairs,
        [row for key, row in one.items() if key not in other],
        [row for key, row in other.items() if key not in one],
    )


def controls(
    first: Mapping[tuple[object, object], Row], second: Mapping[tuple[object, object], Row]
) -> dict[object, object]:
    """{case: peer}: the other than ours with a time on both sides whose intervals are narrowest.

    Ours over theirs is what a result file is about, and a slow hour of the machine falls on both. One whose
    own rounds vary would only add its noise.
    """
    found: dict[object, tuple[float, object]] = {}
    for (case, peer), row in first.items():
        other = second.get((case, peer))
        if other is None or is_ours(row) or not row["status"] == other["status"] == OK:
            continue
        width = sum((side["p80_ms"] - side["p20_ms"]) / side["median_ms"] for side in (row, other))
        found[case] = min(found.get(case, (width, peer)), (width, peer), key=lambda item: item[0])
    return {case: peer for case, (_, peer) in found.items()}


def _key(row: Row) -> tuple[object, object]:
    try:
        return row["case"], row["peer"]
    except KeyError as error:
        raise ResultError(f"these results cannot be compared: their rows have no {error}") from error


def _times(row: Row, measure: Row | None, against: str | None) -> RowTimes | None:
    """The times of `row`, over those of `measure` where `against` says so; None where one is missing."""
    if row["status"] != OK:
        return None
    own = RowTimes(row["median_ms"], row["p20_ms"], row["p80_ms"], row["rounds"])
    if against is None:
        return own
    if measure is None or measure["status"] != OK:
        return None
    return RowTimes(
        own.median / measure["median_ms"],
        own.p20 / measure["p80_ms"],
        own.p80 / measure["p20_ms"],
        min(own.rounds, measure["rounds"]),
    )


def conditions(first: Results, second: Results) -> list[str]:
    """Sentences naming what else than the commit differs between two files: machine, versions, settings."""
    found = [
        text for text in differences(first.environment, second.environment) if not text.startswith("commit:")
    ]
    found += [
        f"settings, {name}: {first.settings.get(name)!r} there, {second.settings.get(name)!r} here"
        for name in dict.fromkeys((*first.settings, *second.settings))
        if first.settings.get(name) != second.settings.get(name)
    ]
    return found


def compare_table(found: Comparison, names: tuple[str, str], title: str) -> Table:
    """A line for each pair: both medians, or both speeds as multiples of the measure's, and how many times as
    fast the second is, or `=`.
    """
    divided = any(pair.measures != (None, None) for pair in found.pairs)
    table = Table(
        title=title,
        caption=f"{names[1]} vs {names[0]}: its speed over the other's; ±: the spread of both from run to "
        "run; =: no more than noise",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("case", no_wrap=True)
    table.add_column("peer")
    if divided:
        table.add_column("over")
    unit = "" if divided else " ms"
    for heading in (names[0] + unit, names[1] + unit, f"{names[1]} vs {names[0]}", "±"):
        table.add_column(heading, justify="right")
    for pair in found.pairs:
        table.add_row(
            case_text(pair.first),
            str(pair.first["label"]),
            *([_over_text(pair)] if divided else []),
            *(
                _median_text(row, measure, divided)
                for row, measure in zip((pair.first, pair.second), pair.measures, strict=True)
            ),
            *_difference_texts(pair.difference),
        )
    return table


def case_text(row: Row) -> str:
    """The case of a row as a line of the table has it."""
    if {"model", "image_size", "batch", "dtype"} <= row.keys():
        dtype = SHORT_DTYPES.get(str(row["dtype"]), row["dtype"])
        return f"{row['model']} @{row['image_size']}, batch {row['batch']}, {dtype}"
    return str(row["case"])


def _over_text(pair: Pair) -> str:
    return next((str(row["label"]) for row in pair.measures if row is not None), "-")


def _median_text(row: Row, measure: Row | None, divided: bool) -> str:
    if row["status"] != OK:
        return f"[bold red]{row['status']}[/bold red]" if row["status"] == "FAIL" else str(row["status"])
    if not divided:
        return f"{row['median_ms']:.4g}"
    if measure is None or measure["status"] != OK:
        return "-"
    return f"{measure['median_ms'] / row['median_ms']:.2f}x"


def _difference_texts(difference: Difference | None) -> tuple[str, str]:
    if difference is None:
        return "-", "-"
    spread = f"{100 * difference.spread:.1f}%"
    if difference.noise:
        return f"[dim]({difference.ratio:.2f}x)[/dim] =", spread
    colour = "green" if difference.ratio > 1 else "red"
    return f"[{colour}]{difference.ratio:.2f}x[/{colour}]", spread


def summary(found: Comparison, names: tuple[str, str]) -> list[str]:
    """Lines below the table: how many differ, pairs without a difference, and rows without a partner."""
    known = [pair.difference for pair in found.pairs if pair.difference is not None]
    equal = sum(difference.noise for difference in known)
    faster = sum(not difference.noise and difference.ratio > 1 for difference in known)
    slower = len(known) - equal - faster
    lines = [f"{len(known)} compared: {equal} =, {names[1]} faster in {faster}, slower in {slower}"]
    for pair in found.pairs:
        for name, row in zip(names, (pair.first, pair.second), strict=True):
            if row["status"] != OK:
                lines.append(f"{name}: {_row_text(row)}: {row['status']}: {row['reason']}")
    for name, rows in ((names[0], found.only_first), (names[1], found.only_second)):
        lines += _alone(name, rows)
    return lines


def _alone(name: str, rows: Iterable[Row]) -> list[str]:
    return [f"only in {name}: {_row_text(row)}" for row in rows]


def _row_text(row: Row) -> str:
    return f"{case_text(row)}, {row['label']}"
