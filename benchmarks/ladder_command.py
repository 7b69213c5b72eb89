"""`python -m benchmarks ops --ladder`: its options, its file, its exit status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks import ladder, ladder_plots, ladder_tables, limits
from benchmarks.allocator import settle_allocator
from benchmarks.cases import describe_model, parse_dtypes, parse_numbers
from benchmarks.console import new_console, result_path, run_sweep, shown_path, usage
from benchmarks.contest import Job, rows_text
from benchmarks.ladder import RUNGS, LadderRunner
from benchmarks.progress import Reporter
from benchmarks.results import Results, save
from benchmarks.rows import ERROR, FAIL
from benchmarks.runner import QUICK, THOROUGH
from effnet_fast.measure import describe

#: A batch at which what a kernel moves and computes counts, and not its launch.
BATCHES = {"cpu": "16", "cuda": "256"}
DTYPES = {"cpu": "float32", "cuda": "float16"}


def run_ladder(
    models: tuple[str, ...],
    block: str | None,
    batch: str | None,
    dtype: str | None,
    device: str,
    *,
    compiled: bool,
    full: bool,
    resume: bool,
    rounds: int | None,
    min_seconds: float | None,
    out: Path | None,
) -> None:
    """Measure one ladder into its result file, and show it; options as of the command.

    Exit status 1 when a rung of ours fails its check or breaks off, 2 for a wrong option, 130 after Ctrl-C.
    """
    (model,) = one("--model", list(models) or ["efficientnet_b0"])
    usage(describe_model, model)
    (images,) = one("--batch", usage(parse_numbers, batch or BATCHES[device], name="--batch"))
    (storage,) = one("--dtype", usage(parse_dtypes, dtype or DTYPES[device]))
    case = usage(ladder.ladder_case, model, block, images, storage)
    given = {"rounds": rounds, "min_seconds": min_seconds}
    settings = replace(
        THOROUGH if full else QUICK,
        threads=torch.get_num_threads(),
        **{name: value for name, value in given.items() if value is not None},
    )
    peers = tuple(rung for rung in RUNGS if compiled or rung != "compiled")
    options = [
        f"--model {model}", f"--block {case.name}", f"--batch {images}", f"--dtype {storage}",
        f"--device {device}", "" if compiled else "--no-compiled", "--full" if full else "",
    ]  # fmt: skip
    kind = f"ladder-{model}-{case.name}-{images}-{storage}"
    console, path = new_console(), result_path(kind, device, full=full, out=out)
    fresh = Results(
        "ladder",
        describe(device=device),
        {**settings.record(), "allocator": settle_allocator()},
        " ".join(["python -m benchmarks ops --ladder", *filter(None, options)]),
    )

    def run(pending: list[Job], results: Results) -> int:
        if not pending:
            return 0
        found = limits.measure_limits(device, storage)
        results.environment["limits"] = found.record()
        reporter = Reporter(console, title=ladder.case_title, text=rows_text)
        runner = LadderRunner(settings, reporter, device, found)
        return runner.run(pending, results, lambda: save(results, path))

    rows = run_sweep(console, path, fresh, [Job(case, peers)], run, show_ladder, resume=resume)
    if any(row["status"] in (FAIL, ERROR) for row in rows if row["group"] == "ours"):
        raise SystemExit(1)


def one(option: str, values: list) -> list:
    """`values` if there is one; a usage error otherwise."""
    if len(values) != 1:
        given = ",".join(map(str, values))
        raise click.UsageError(f"--ladder is of one block in one setting: {option} is {given}; name one")
    return values


def show_ladder(console: Console, results: Results, path: Path) -> None:
    """Print the table of a ladder and draw its picture."""
    console.print(ladder_tables.ladder_table(results))
    for note in ladder_tables.notes(results):
        console.print(note, markup=False, highlight=False)
    drawn = ladder_plots.plot_ladder(results, path.with_suffix(".png"))
    files = f"{shown_path(path)}, .csv" + (", .png" if drawn else "")
    console.print(f"written: {files}", markup=False, highlight=False)
