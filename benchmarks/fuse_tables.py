"""Tables of `benchmarks fuse`: on a terminal, in the README, and the targets below them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.table import Table

from benchmarks.fuse import EAGER, EAGER_NHWC, FUSED, PEERS
from benchmarks.fuse_models import EFFICIENTNET
from benchmarks.results import Results
from benchmarks.rows import OK
from benchmarks.tables import NOISY_SPREAD, SHORT_DTYPES, Row, place_text, ratio_text, speed_text

#: What `fuse` is to reach over the eager model as it comes, for EfficientNets; others are not to be slower.
LEAST = 1.5

Case = dict[str, Row]  # rows of one case by peer


def cases_of(rows: Sequence[Row]) -> list[Case]:
    """Rows of each case by peer, in the order of the file."""
    cases: dict[str, Case] = {}
    for row in rows:
        cases.setdefault(str(row["case"]), {})[str(row["peer"])] = row
    return list(cases.values())


def gain(case: Case, over: str) -> float | None:
    """How many times as fast as `over` the fused model is; None where one of them has no time."""
    rows = [case.get(over), case.get(FUSED)]
    if any(row is None or row["status"] != OK for row in rows):
        return None
    return rows[0]["median_ms"] / rows[1]["median_ms"]


def is_slower(case: Case) -> bool:
    """Whether the fused model is slower than eager as it comes, by more than the spread of the rounds."""
    return gain(case, EAGER) is not None and case[FUSED]["p20_ms"] > case[EAGER]["p80_ms"]


def fuse_table(results: Results) -> Table:
    """Images per second of everybody, and what fusing gains."""
    table = Table(
        title=f"images/s, batch {results.rows[0]['batch']}, {place_text(results.environment)}",
        caption="error: of the fused model, 1 is all that the numerics contract allows; vs: fused over eager "
        f"as it comes, and over channels_last; ±: 20th to 80th percentile, above {NOISY_SPREAD / 2:.0%}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("model", "pixels", "dtype", *PEERS.values(), "error", "vs eager", "vs NHWC", "left"):
        table.add_column(heading, justify="left" if heading in ("model", "dtype") else "right")
    for case in cases_of(results.rows):
        first = next(iter(case.values()))
        fused = case.get(FUSED, {})
        table.add_row(
            f"{first['library']} {first['model']}",
            str(first["image_size"]),
            SHORT_DTYPES[first["dtype"]],
            *(_speed(case.get(peer)) for peer in PEERS),
            error_text(case),
            ratio_text(gain(case, EAGER)),
            ratio_text(gain(case, EAGER_NHWC)),
            str(fused.get("modules_left_alone", "-")),
        )
    return table


def _speed(row: Row | None) -> str:
    noisy = row is not None and row["status"] == OK and row["spread"] > NOISY_SPREAD
    return speed_text(row) + (f" ±{50 * row['spread']:.0f}%" if noisy else "")


def error_text(case: Case) -> str:
    """The share of the allowed error that the fused model takes, or what became of it."""
    row = case.get(FUSED)
    if row is None:
        return "-"
    usage = row.get("error_usage")
    return str(row["status"]) if usage is None else f"{usage:.2f}"


def target_lines(results: Results) -> list[str]:
    """A line for each target: met, missed by which models, or open."""
    cases = cases_of(results.rows)
    named = [case for case in cases if next(iter(case.values()))["family"] == EFFICIENTNET]
    slower = [case for case in cases if is_slower(case)]
    short = [case for case in named if (gain(case, EAGER) or LEAST) < LEAST]
    return [
        _line("no model slower than eager as it comes, beyond the spread", cases, slower),
        _line(f"EfficientNets at least {LEAST}x of eager as it comes", named, short),
    ]


def _line(wanted: str, cases: Sequence[Case], missing: Sequence[Case]) -> str:
    if missing:
        return f"missed {wanted}: " + ", ".join(
            f"{_name(case)} {ratio_text(gain(case, EAGER))}" for case in missing
        )
    unknown = [case for case in cases if gain(case, EAGER) is None]
    if unknown or not cases:
        return f"open   {wanted}: {', '.join(map(_name, unknown)) or 'none was measured'}"
    least = min(cases, key=lambda case: gain(case, EAGER))
    return f"met    {wanted} ({len(cases)} cases, least {_name(least)} {ratio_text(gain(least, EAGER))})"


def _name(case: Case) -> str:
    first = next(iter(case.values()))
    return f"{first['library']} {first['model']} {SHORT_DTYPES[first['dtype']]}"


def notes(results: Results) -> list[str]:
    """Sentences below the table: why somebody has no time, and the targets."""
    why = [
        f"{row['label']}, {row['case']}: {row['status']}: {row['reason']}"
        for row in results.rows
        if row["status"] != OK
    ]
    return [*why, *target_lines(results)]


def markdown(results: Results) -> str:
    """The support matrix of the README: a line for each model, three columns for each dtype."""
    cases = cases_of(results.rows)
    dtypes = list(dict.fromkeys(str(row["dtype"]) for row in results.rows))
    headings = ["model", "pixels", "modules"]
    for dtype in dtypes:
        headings += [f"{dtype}: error", "vs eager", "vs NHWC"]
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "--:|" * (len(headings) - 1)]
    for _, group in groupby(cases, key=lambda case: next(iter(case.values()))["case"].rpartition("/")[0]):
        by_dtype = {next(iter(case.values()))["dtype"]: case for case in group}
        first = next(iter(next(iter(by_dtype.values())).values()))
        cells = [f"{first['library']} `{first['model']}`", str(first["image_size"]), _modules(by_dtype)]
        for dtype in dtypes:
            case = by_dtype.get(dtype, {})
            cells += [error_text(case), _bold(gain(case, EAGER)), ratio_text(gain(case, EAGER_NHWC))]
        lines.append("| " + " | ".join(cells) + " |")
    environment = results.environment
    first = results.rows[0]
    lines += [
        "",
        f"Batch {first['batch']}, {place_text(environment)}, torch {environment['libraries']['torch']}, "
        f"{environment['date']}, commit {environment['commit'] or 'unknown'}; `{results.command}`. error: of "
        "the fused model's logits against float64, 1.00 is all that the numerics contract allows. vs eager: "
        "over the model as it comes; vs NHWC: over the model in channels_last memory; medians of "
        f"{first.get('rounds', 'no')} alternating rounds, all with an allocator that keeps its memory. "
        "modules: fused (+ left alone).",
    ]
    return "\n".join(lines)


def _bold(value: float | None) -> str:
    return "-" if value is None else f"**{ratio_text(value)}**"


def _modules(by_dtype: dict[str, Case]) -> str:
    row = next((case[FUSED] for case in by_dtype.values() if "modules_fused" in case.get(FUSED, {})), None)
    if row is None:
        return "-"
    left = row["modules_left_alone"]
    return f"{row['modules_fused']}" + (f" (+{left})" if left else "")


def blocks_table(results: Results) -> Table:
    """Blocks from the one that gains least: milliseconds of both, and the ratio."""
    table = Table(
        title=f"milliseconds a call, batch {results.rows[0]['batch']}, {place_text(results.environment)}",
        caption="gain: fused over the block's own modules on channels_last maps; alike: blocks of the list "
        "like this one",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("model", "block", "shape", "alike", "dtype", "eager NHWC", "fused", "gain"):
        justify = "left" if heading in ("model", "block", "shape", "dtype") else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    cases = cases_of(results.rows)
    for case in sorted(cases, key=lambda case: gain(case, EAGER) or 0.0):
        first, rows = next(iter(case.values())), [case.get("eager"), case.get(FUSED)]
        table.add_row(
            str(first["model"]),
            str(first["block"]),
            str(first["shape"]),
            str(first["blocks"]),
            SHORT_DTYPES[first["dtype"]],
            *("-" if row is None else _time(row) for row in rows),
            ratio_text(gain(case, EAGER)),
        )
    return table


def _time(row: Row) -> str:
    return f"{row['median_ms']:.3f}" if row["status"] == OK else str(row["status"])


def blocks_notes(results: Results) -> list[str]:
    """How many blocks gain and how many lose, beyond the spread, and why somebody has no time."""
    cases = cases_of(results.rows)
    losing = [case for case in cases if is_slower(case)]
    why = [
        f"{row['label']}, {row['case']}: {row['status']}: {row['reason']}"
        for row in results.rows
        if row["status"] != OK
    ]
    return [*why, f"{len(losing)} of {len(cases)} blocks lose by more than the spread of their rounds"]
