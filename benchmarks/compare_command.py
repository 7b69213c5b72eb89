"""`python -m benchmarks compare A B`: two result files, or two revisions measured in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks.cases import IMAGE_SIDES, parse_dtypes, parse_numbers, sweep
from benchmarks.compare import STEADIEST, Comparison, compare_rows, compare_table, conditions, summary
from benchmarks.console import (
    FOLDER,
    SECONDS,
    new_console,
    refuse,
    result_path,
    run_sweep,
    shown_path,
    usage,
)
from benchmarks.devices import DEVICES, check_device
from benchmarks.progress import Reporter
from benchmarks.results import ResultError, Results, load, save
from benchmarks.revision_contest import SIDES, Job, RevisionContest, rows_text
from benchmarks.revisions import HERE, RevisionError, checkouts, resolve
from benchmarks.rows import OK
from benchmarks.runner import Settings
from benchmarks.tables import is_ours, place_text
from effnet_fast.measure import SAME_RUN_FLOOR, SEPARATE_RUNS_FLOOR, describe

#: Nine rounds: with fewer the rule asks for more than the spread (effnet_fast/measure/difference.py).
SETTINGS = Settings(rounds=9, min_seconds=0.5, budget_seconds=120.0)


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--against",
    metavar="PEER",
    help="Files: divide each time by this peer's of the same case and file.  [default: effnet_fast's, by the "
    "steadiest other's]",
)
@click.option("--times", is_flag=True, help="Files: hold times against times, with whatever the machine did.")
@click.option("--model", "models", multiple=True, help="Revisions; repeatable.  [default: efficientnet_b0]")
@click.option("--batch", help="Revisions: images per call.  [default: 1,16]")
@click.option("--dtype", help="Revisions.  [default: float32; on a GPU float16]")
@click.option("--resolution", help="Revisions: image sizes.  [default: the published]")
@click.option("--device", type=click.Choice(DEVICES), help="Revisions.  [default: cuda where there is one]")
@click.option("--rounds", type=click.IntRange(3), help="Revisions.  [default: 9]")
@click.option("--min-seconds", type=SECONDS, help="Revisions: length of one sample.  [default: 0.5]")
@click.option("--budget", type=SECONDS, help="Revisions: seconds of timing per case.  [default: 120]")
@click.option("--threads", type=click.IntRange(0), help="Revisions.  [default: as many as torch takes]")
@click.option("--resume", is_flag=True, help="Revisions: keep the finished cases of the result file.")
@click.option("--out", type=FOLDER, help="Revisions: folder of the result file.")
def compare(first: str, second: str, against: str | None, times: bool, **options: object) -> None:
    """How many times as fast B is as A, row by row, with the spread beside it, and = where it is noise.

    A and B are two result files of the same kind, or two revisions that git knows (HEAD~1, a tag, a branch;
    "." is this checkout as it is). Revisions are checked out beside this one, built where their native
    sources differ, and their engines timed in turn, in a new process for every sample.

    Of files, which are two runs at two times, the ratios are compared: each of effnet_fast's times over that
    of the other peer in the same case and file whose rounds vary least.

    Exit status 1 when an engine fails its check or breaks off, whichever is faster; 2 for a wrong option, an
    unknown revision or an unusable file. Ctrl-C keeps every finished case.
    """
    are_files = [_is_file(name) for name in (first, second)]
    given = [
        f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, (), False)
    ]
    if all(are_files):
        for option in given:
            raise click.UsageError(
                f"{option.replace('models', 'model')} is for revisions, and these are files"
            )
        if times and against is not None:
            raise click.UsageError("--times and --against exclude each other")
        compare_files(new_console(), Path(first), Path(second), against, times=times)
        return
    if any(are_files):
        raise click.UsageError(f"compare two files or two revisions, not {first} with {second}")
    if times or against is not None:
        option = "--times" if times else "--against"
        raise click.UsageError(f"{option} is for result files: of a revision the engine alone is measured")
    if not compare_revisions(new_console(), (first, second), **options):
        raise SystemExit(1)


def _is_file(name: str) -> bool:
    return name.endswith(".json") or (name != HERE and Path(name).is_file())


def compare_files(
    console: Console, first: Path, second: Path, against: str | None = None, *, times: bool = False
) -> None:
    """Print `second` against `first`; before the table, what else than the commit differs between them.

    Unless `times` or `against` says otherwise, files with somebody else's rows are compared by their ratios.
    """
    try:
        one = load(first)
        other = load(second, kind=one.kind)
        if not times and against is None and len({is_ours(row) for row in one.rows}) == 2:
            against = STEADIEST
        found = compare_rows(one.rows, other.rows, floor=SEPARATE_RUNS_FLOOR, against=against)
        if not found.pairs:
            raise ResultError(f"{first} and {second} have no case and peer in common")
    except (ResultError, ValueError) as error:
        raise refuse(error) from error
    for side, path, results in zip(SIDES, (first, second), (one, other), strict=True):
        commit = results.environment.get("commit") or "unknown"
        console.print(
            f"{side}: {shown_path(path)}, commit {commit}, {results.environment.get('date')}", markup=False
        )
    if unlike := conditions(one, other):
        console.print("NOT MEASURED ALIKE: a ratio below is not about the code alone", style="bold red")
        for text in unlike:
            console.print(f"  {text}", markup=False, highlight=False, style="red")
    whose = "the steadiest other peer" if against == STEADIEST else against
    title = f"{one.kind}, " + (
        f"over {whose} of the same case and file" if against else place_text(other.environment)
    )
    _print(console, found, title)


def _print(console: Console, found: Comparison, title: str) -> None:
    console.print(compare_table(found, SIDES, title))
    for line in summary(found, SIDES):
        console.print(line, markup=False, highlight=False)


def compare_revisions(
    console: Console,
    names: tuple[str, str],
    *,
    models: Sequence[str] = (),
    batch: str | None = None,
    dtype: str | None = None,
    resolution: str | None = None,
    device: str | None = None,
    rounds: int | None = None,
    min_seconds: float | None = None,
    budget: float | None = None,
    threads: int | None = None,
    resume: bool = False,
    out: Path | None = None,
) -> bool:
    """Measure two revisions into compare.json and print it; True when both have a time in every case."""
    chosen = usage(check_device, device)
    cases = usage(
        sweep,
        models or ("efficientnet_b0",),
        usage(parse_numbers, batch or "1,16", name="--batch"),
        usage(parse_dtypes, dtype or ("float32" if chosen == "cpu" else "float16")),
        chosen,
        usage(parse_numbers, resolution, allowed=IMAGE_SIDES, name="--resolution") if resolution else (),
    )
    given = {"rounds": rounds, "min_seconds": min_seconds, "budget_seconds": budget}
    settings = replace(
        SETTINGS,
        **{name: value for name, value in given.items() if value is not None},
        threads=threads or torch.get_num_threads(),
    )
    try:
        commits = [resolve(name) for name in names]
    except RevisionError as error:
        raise refuse(error) from error
    described = describe(device=chosen, threads=settings.threads)
    shown = [described["commit"] if commit == HERE else commit[:10] for commit in commits]
    noted = settings.record() | {
        side: text if text.startswith(name) else f"{name} ({text})"
        for side, name, text in zip(SIDES, names, shown, strict=True)
    }
    arguments = [
        *names, *(f"--model {name}" for name in models), f"--batch {batch}" if batch else "",
        f"--dtype {dtype}" if dtype else "", f"--resolution {resolution}" if resolution else "",
        f"--device {device}" if device else "",
    ]  # fmt: skip
    fresh = Results(
        "compare", described, noted, " ".join(["python -m benchmarks compare", *filter(None, arguments)])
    )
    path = result_path("compare", chosen, full=False, out=out)

    def run(pending: list[Job], results: Results) -> int:
        if not pending:
            return 0
        with (
            tempfile.TemporaryDirectory(prefix="effnet-fast-benchmarks-") as folder,
            checkouts(commits, device=chosen, say=console.print) as trees,
        ):
            sides = {side: trees[commit] for side, commit in zip(SIDES, commits, strict=True)}
            reporter = Reporter(console, text=rows_text)
            with RevisionContest(sides, settings, chosen, Path(folder), reporter) as contest:
                return contest.run(pending, results, lambda: save(results, path))

    try:
        rows = run_sweep(
            console, path, fresh, [Job(case) for case in cases], run, show_comparison, resume=resume
        )
    except RevisionError as error:
        raise refuse(error) from error
    return all(row["status"] == OK for row in rows)


def show_comparison(console: Console, results: Results, path: Path) -> None:
    """Print the table of two revisions."""
    sides = [
        [{**row, "peer": "engine", "label": "effnet_fast"} for row in results.rows if row["peer"] == side]
        for side in SIDES
    ]
    for side in SIDES:
        console.print(f"{side}: {results.settings[side]}", markup=False, highlight=False)
    _print(console, compare_rows(*sides, floor=SAME_RUN_FLOOR), place_text(results.environment))
    console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)
