"""What the commands of the suite share: consoles, errors, and sweeps that save, resume and end on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from benchmarks.results import ResultError, Results, load
from effnet_fast.measure import device_slug, differences, load_per_core

RESULTS = Path(__file__).resolve().parent / "results"
LOCAL = RESULTS / "local"

#: Load of each core above which a warning precedes the sweep.
BUSY_LOAD = 0.5

FOLDER = click.Path(path_type=Path, file_okay=False)
SECONDS = click.FloatRange(0)

INTERRUPTED = 130  # the exit status of a shell for a command that Ctrl-C ended


def new_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal. Without one rich assumes 80 columns, which breaks every line of the
    tables in a log.
    """
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=160)


def usage(parse: Callable, *arguments: object, **options: object):
    """`parse(...)` with its ValueError as a usage error (exit status 2)."""
    try:
        return parse(*arguments, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def refuse(error: Exception) -> click.ClickException:
    """`error` as a message without a traceback, and exit status 2."""
    refusal = click.ClickException(str(error))
    refusal.exit_code = 2
    return refusal


def result_path(kind: str, device: str, *, full: bool, out: Path | None) -> Path:
    """Where results of `kind` go: `out`, or results/<device>/ with `full`, or results/local/.

    Figures of a GPU never take the place of a CPU's.
    """
    folder = out or (RESULTS / device_slug(device) if full else LOCAL)
    return folder / (f"{kind}.json" if device == "cpu" else f"{kind}-{device}.json")


def run_sweep(
    console: Console,
    path: Path,
    fresh: Results,
    jobs: list,
    run: Callable[[list, Results], int],
    show: Callable[[Console, Results, Path], None],
    *,
    resume: bool,
) -> list[dict[str, object]]:
    """`run` what is not in the result file yet, `show` all of it, and return the rows of `jobs`.

    `run` saves after every case, and returns how many it left out for want of time.
    """
    try:
        results = open_results(path, fresh, resume=resume)
    except ResultError as error:
        raise refuse(error) from error
    pending = [job for job in jobs if not finished(results, job)]
    if len(pending) < len(jobs):
        console.print(
            f"{len(jobs) - len(pending)} of {len(jobs)} cases are in {shown_path(path)} already",
            highlight=False,
        )
    if pending:
        warn_of_load(console)
    interrupted = False
    try:
        left_out = run(pending, results)
        if left_out:
            console.print(
                f"{left_out} cases left out, for the time is up; to go on: {fresh.command} --resume"
            )
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted; the finished cases are kept (continue with --resume)")
    if results.rows:
        show(console, results, path)
    if interrupted:
        raise SystemExit(INTERRUPTED)
    keys = {job.case.key for job in jobs}
    return [row for row in results.rows if row["case"] in keys]


def warn_of_load(console: Console) -> None:
    """Say so where other processes keep this machine busy."""
    load = load_per_core()
    if load > BUSY_LOAD:
        console.print(
            f"this machine is busy (load {load:.1f} for each core): ratios are noisy, times too long",
            style="yellow",
            highlight=False,
        )


def finished(results: Results, job) -> bool:
    """Whether every peer of `job` has a time that Ctrl-C did not cut short, or a lasting reason for none."""
    rows = [row for row in results.of_case(job.case.key) if not row.get("interrupted")]
    done = {row["peer"] for row in rows if row["status"] != "error"}
    return done >= set(job.peers)


def open_results(path: Path, fresh: Results, *, resume: bool) -> Results:
    """The file's results when a run is resumed, else the empty `fresh` ones.

    A file that cannot be read is an error either way: it may be the only copy of something.
    """
    if not path.exists():
        return fresh
    old = load(path, kind=fresh.kind)
    if not resume:
        return fresh
    reasons = differences(old.environment, fresh.environment)
    if old.settings != fresh.settings:
        reasons.append(f"settings: {old.settings} there, {fresh.settings} here")
    if reasons:
        raise ResultError(
            f"{shown_path(path)} cannot be resumed: {'; '.join(reasons)}. Use --fresh or another --out"
        )
    old.command = fresh.command
    return old


def check_replaceable(path: Path, kind: str) -> None:
    """ResultError where `path` is something else than a whole result file of `kind`."""
    if path.exists():
        load(path, kind=kind)


def shown_path(path: Path) -> str:
    """`path` as seen from the current folder where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
