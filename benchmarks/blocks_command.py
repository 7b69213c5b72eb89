"""`python -m benchmarks blocks`: every distinct MBConv block of a model by itself."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks import block_tables, blocks
from benchmarks.allocator import settle_allocator
from benchmarks.cases import describe_model, parse_dtypes, parse_numbers
from benchmarks.console import FOLDER, LOCAL, SECONDS, new_console, run_sweep, shown_path, usage
from benchmarks.contest import Job, rows_text
from benchmarks.profile_command import peaks_text
from benchmarks.progress import Reporter
from benchmarks.results import Results, save
from benchmarks.rows import OK
from benchmarks.runner import QUICK
from effnet_fast import backends
from effnet_fast.measure import cpu_peaks, describe


@click.command("blocks")
@click.option("--model", default="efficientnet_b0", show_default=True)
@click.option("--batch", default="16", show_default=True, help="Images per call, e.g. 1,16.")
@click.option("--dtype", default="float32", show_default=True, help="E.g. float32,bfloat16.")
@click.option("--compiled", is_flag=True, help="Compare with torch.compile, too, which takes long.")
@click.option("--resume", is_flag=True, help="Keep the finished blocks of the result file.")
@click.option("--rounds", type=click.IntRange(3), default=5, show_default=True)
@click.option("--min-seconds", type=SECONDS, default=0.05, show_default=True, help="Length of one sample.")
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
@click.option("--out", type=FOLDER, default=LOCAL, help="Folder of the result files.")
def blocks_command(
    model: str,
    batch: str,
    dtype: str,
    compiled: bool,
    resume: bool,
    rounds: int,
    min_seconds: float,
    threads: int,
    out: Path,
) -> None:
    """Time every distinct MBConv block on the CPU: stock PyTorch, our three kernels, and one.

    Exit status 1 when a form of ours fails its check or breaks off; 2 for a wrong option or an unusable
    result file. Ctrl-C keeps every finished block, and of the one under way the complete rounds if there are
    three.
    """
    usage(describe_model, model)
    batches, dtypes = usage(parse_numbers, batch, name="--batch"), usage(parse_dtypes, dtype)
    reason = backends.supports("mbconv", blocks.BACKEND, device_type="cpu", dtype=torch.float32)
    if reason is not None:
        raise click.UsageError(f"blocks compares kernels of the CPU backend, which cannot serve: {reason}")
    cases = blocks.block_cases(model, batches, dtypes)
    if not cases:
        raise click.UsageError(f"--model: {model} has no MBConv block; see python -m benchmarks ops")
    if threads:
        torch.set_num_threads(threads)
    peers = ("eager", *(["compiled"] if compiled else []), *blocks.OURS)
    peaks = cpu_peaks(torch.get_num_threads())
    settings = replace(QUICK, rounds=rounds, min_seconds=min_seconds, threads=torch.get_num_threads())
    options = f"--model {model} --batch {batch} --dtype {dtype}{' --compiled' if compiled else ''}"
    # Measured, so not among the settings, which a resumed run must share.
    environment = {**describe(), "peaks": asdict(peaks) if peaks else None}
    command = f"python -m benchmarks blocks {options}"
    noted = {**settings.record(), "allocator": settle_allocator()}
    fresh = Results("blocks", environment, noted, command)
    console, path = new_console(), out / f"blocks-{model}.json"
    reporter = Reporter(console, title=blocks.case_title, text=rows_text)

    def run(pending: list[Job], results: Results) -> int:
        runner = blocks.BlockRunner(settings, reporter, peaks)
        return runner.run(pending, results, lambda: save(results, path))

    def show(console: Console, results: Results, path: Path) -> None:
        console.print(block_tables.blocks_table(results))
        for note in block_tables.notes(results):
            console.print(note, markup=False, highlight=False)
        console.print(peaks_text(peaks, settings.threads), markup=False, highlight=False)
        console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)

    jobs = [Job(case, peers) for case in cases]
    rows = run_sweep(console, path, fresh, jobs, run, show, resume=resume)
    if any(row["status"] != OK for row in rows if row["group"] == "ours"):
        raise SystemExit(1)
