"""`python -m benchmarks fuse`: other libraries' models, eager and fused; with --blocks, block by block; with
--alone, layers that the fusion rule decides about.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks import fuse, fuse_alone, fuse_alone_tables, fuse_blocks, fuse_tables
from benchmarks.allocator import settle_allocator
from benchmarks.cases import parse_dtypes
from benchmarks.console import FOLDER, SECONDS, new_console, result_path, run_sweep, shown_path, usage
from benchmarks.contest import ContestRunner, Job, rows_text
from benchmarks.fuse_models import parse_models
from benchmarks.progress import Reporter
from benchmarks.progress import rows_text as rates_text
from benchmarks.results import Results, save
from benchmarks.rows import OK
from benchmarks.runner import THOROUGH
from effnet_fast import backends
from effnet_fast.measure import describe

#: Length of one sample: seven of three peers in 48 cases, within ten minutes; and of hundreds of blocks.
MODEL_SECONDS, BLOCK_SECONDS = 0.15, 0.02
BATCH = 8


@click.command("fuse")
@click.option("--model", "names", multiple=True, help="Some of the list alone; repeatable.")
@click.option("--batch", default=BATCH, show_default=True, type=click.IntRange(1), help="Images per call.")
@click.option("--dtype", default="float32,bfloat16", show_default=True)
@click.option("--blocks", is_flag=True, help="Every distinct block by itself instead, against its modules.")
@click.option(
    "--alone", is_flag=True, help="A fixed list of single layers instead, fused whatever the rule says."
)
@click.option("--full", is_flag=True, help="Write into results/<device>/.")
@click.option("--resume", is_flag=True, help="Keep the finished cases of the result file.")
@click.option("--rounds", type=click.IntRange(3), help="[default: 7]")
@click.option(
    "--min-seconds", type=SECONDS, help="Length of one sample.  [default: 0.15; --blocks, --alone 0.02]"
)
@click.option("--limit-minutes", type=click.FloatRange(0), help="Begin no further case after this.")
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
@click.option("--out", type=FOLDER, help="Folder of the result files.")
def fuse_command(
    names: tuple[str, ...],
    batch: int,
    dtype: str,
    blocks: bool,
    alone: bool,
    full: bool,
    resume: bool,
    rounds: int | None,
    min_seconds: float | None,
    limit_minutes: float | None,
    threads: int,
    out: Path | None,
) -> None:
    """Time models of timm, torchvision and efficientnet_pytorch on the CPU: eager, and fused.

    A fixed list of 24, each checked against float64 logits of its own first; timed as it comes, in
    channels_last memory, and as `effnet_fast.fuse` returns it. The list needs the three libraries.

    Exit status 1 when a fused model fails its check or breaks off; 2 for a wrong option or an unusable result
    file. Ctrl-C keeps every finished case, and of the one under way the complete rounds if there are three.
    """
    if alone and (blocks or names):
        raise click.UsageError("--alone takes neither --blocks nor --model: it has a list of its own")
    models, dtypes = usage(parse_models, names), usage(parse_dtypes, dtype)
    reason = backends.supports("mbconv", "cpu", device_type="cpu", dtype=torch.float32)
    if reason is not None:
        raise click.UsageError(f"fuse times kernels of the CPU backend, which cannot serve: {reason}")
    if threads:
        torch.set_num_threads(threads)
    seconds = min_seconds if min_seconds is not None else BLOCK_SECONDS if blocks or alone else MODEL_SECONDS
    settings = replace(
        THOROUGH, rounds=rounds or THOROUGH.rounds, min_seconds=seconds, threads=torch.get_num_threads()
    )
    options = [
        *(f"--model '{name}'" for name in names),
        "" if batch == BATCH else f"--batch {batch}",
        "" if dtype == "float32,bfloat16" else f"--dtype {dtype}",
        "--blocks" if blocks else "",
        "--alone" if alone else "",
        "--full" if full else "",
    ]
    command = " ".join(["python -m benchmarks fuse", *filter(None, options)])
    # Not the time that a case may take: the targets are of seven rounds, however busy the machine is.
    settings = replace(settings, budget_seconds=60.0)
    noted = {**settings.record(), "allocator": settle_allocator()}
    console = new_console()
    runner_type: type[ContestRunner]
    if alone:
        kind, show, title, text = "fuse-alone", show_alone, fuse_alone.case_title, rows_text
        cases, peers = fuse_alone.layer_cases(fuse_alone.LAYERS, batch, dtypes), tuple(fuse_alone.PEERS)
        runner_type = fuse_alone.LayerRunner
    elif blocks:
        kind, show, title, text = "fuse-blocks", show_blocks, fuse_blocks.case_title, rows_text
        cases, peers = fuse_blocks.block_cases(models, batch, dtypes), tuple(fuse_blocks.PEERS)
        runner_type = fuse_blocks.FusedBlockRunner
    else:
        kind, show, title, text = "fuse", show_fuse, fuse.case_title, rates_text
        cases = [fuse.FuseCase(model.name, batch, storage) for model in models for storage in dtypes]
        peers, runner_type = tuple(fuse.PEERS), fuse.FuseRunner
    path = result_path(kind, "cpu", full=full, out=out)
    runner = runner_type(settings, Reporter(console, title=title, text=text))

    def run(pending: list[Job], results: Results) -> int:
        limit = None if limit_minutes is None else 60 * limit_minutes
        return runner.run(pending, results, lambda: save(results, path), deadline_seconds=limit)

    fresh = Results(kind, describe(), noted, command)
    rows = run_sweep(console, path, fresh, [Job(case, peers) for case in cases], run, show, resume=resume)
    if any(row["status"] != OK for row in rows if row["group"] == "ours"):
        raise SystemExit(1)


def show_fuse(console: Console, results: Results, path: Path) -> None:
    """Print the table of the models, and which targets are met."""
    _show(console, fuse_tables.fuse_table(results), fuse_tables.notes(results), path)


def show_blocks(console: Console, results: Results, path: Path) -> None:
    """Print the table of the blocks."""
    _show(console, fuse_tables.blocks_table(results), fuse_tables.blocks_notes(results), path)


def show_alone(console: Console, results: Results, path: Path) -> None:
    """Print the table of single layers, and whether the rule agrees."""
    _show(console, fuse_alone_tables.alone_table(results), fuse_alone_tables.alone_notes(results), path)


def _show(console: Console, table: object, lines: list[str], path: Path) -> None:
    console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)
