"""`python -m benchmarks latency`: how long one call takes, and how much of that is the host's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich import box
from rich.console import Console
from rich.table import Table

import effnet_fast
from benchmarks.cases import Case, parse_dtypes, parse_numbers, sweep
from benchmarks.console import FOLDER, SECONDS, new_console, result_path, run_sweep, shown_path, usage
from benchmarks.devices import DEVICES, check_device
from benchmarks.overhead import host_overhead
from benchmarks.peers import PEERS, parse_peers
from benchmarks.progress import Reporter
from benchmarks.results import Results, save
from benchmarks.rows import OK
from benchmarks.runner import QUICK, Job, Runner
from benchmarks.subject import distinct_images, rows_of_batch, seeded_model
from benchmarks.tables import SHORT_DTYPES, cases_of, is_ours, machine_text, model_text, notes, ratio_text
from effnet_fast.measure import describe

#: What may be the fastest way of stock PyTorch for a single image, beside what everybody writes.
DEFAULT_PEERS = {
    "cpu": "eager-nhwc,eager-tuned,compiled,engine",
    "cuda": "eager-nhwc,graph-nhwc,graph-folded,compiled-autotune,compiled-graphs,engine-uint8,engine",
}

COLUMNS = ("median_ms", "p20_ms", "p80_ms", "p99_ms")


@click.command("latency")
@click.option("--model", "names", multiple=True, help="Repeatable.  [default: efficientnet_b0]")
@click.option("--batch", default="1", show_default=True, help="Images per call.")
@click.option("--dtype", help="[default: float32,bfloat16; on a GPU float16]")
@click.option("--device", type=click.Choice(DEVICES), help="[default: cuda where there is one]")
@click.option("--peers", help=f"all that apply to the device, or some of {', '.join(PEERS)}.")
@click.option("--full", is_flag=True, help="Write into results/<device>/.")
@click.option("--resume", is_flag=True, help="Keep the finished cases of the result file.")
@click.option("--out", type=FOLDER, help="Folder of the result files.")
@click.option("--rounds", type=click.IntRange(3), default=9, show_default=True)
@click.option("--min-seconds", type=SECONDS, default=0.5, show_default=True, help="Length of one sample.")
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
def latency(
    names: tuple[str, ...],
    batch: str,
    dtype: str | None,
    device: str | None,
    peers: str | None,
    full: bool,
    resume: bool,
    out: Path | None,
    rounds: int,
    min_seconds: float,
    threads: int,
) -> None:
    """Time single calls: from idle to the logits, host overhead included; the distribution over all calls.

    On a CPU also what a call of effnet_fast costs without its kernels. Exit status 1 when effnet_fast fails
    its check or breaks off; 2 for a wrong option.
    """
    chosen = usage(check_device, device)
    dtypes = usage(parse_dtypes, dtype or ("float16" if chosen == "cuda" else "float32,bfloat16"))
    batches = usage(parse_numbers, batch, name="--batch")
    cases = usage(sweep, names or ("efficientnet_b0",), batches, dtypes, chosen)
    contestants = tuple(usage(parse_peers, peers or DEFAULT_PEERS[chosen], chosen))
    threads = threads or torch.get_num_threads()
    settings = replace(QUICK, rounds=rounds, min_seconds=min_seconds, budget_seconds=60.0, threads=threads)
    options = [
        *(f"--model {name}" for name in names),
        "" if batch == "1" else f"--batch {batch}",
        f"--dtype {dtype}" if dtype else "",
        f"--device {device}" if device else "",
        f"--peers {peers}" if peers else "",
        "--full" if full else "",
    ]
    command = " ".join(["python -m benchmarks latency", *filter(None, options)])
    fresh = Results("latency", describe(device=chosen, threads=threads), settings.record(), command)
    rows = run_latency(
        new_console(),
        result_path("latency", chosen, full=full, out=out),
        [Job(case, contestants) for case in cases],
        fresh,
        device=chosen,
        resume=resume,
    )
    if any(row["status"] != OK for row in rows if is_ours(row)):
        raise SystemExit(1)


def run_latency(
    console: Console,
    path: Path,
    jobs: list[Job],
    fresh: Results,
    *,
    device: str,
    resume: bool = False,
    start_peer: Callable | None = None,
) -> list[dict[str, object]]:
    """Run `jobs` into the result file `path` and return their rows; `start_peer` is the `Runner`'s."""
    settings = replace(QUICK, **fresh.settings)

    def run(pending: list[Job], results: Results) -> int:
        with Runner(
            settings, Reporter(console), device=device, each_call=True, start_peer=start_peer
        ) as runner:
            left_out = runner.run(pending, results, lambda: save(results, path))
        if device == "cpu":
            for job in pending:
                add_overhead(results, job.case)
            save(results, path)
        return left_out

    return run_sweep(console, path, fresh, jobs, run, show_latency, resume=resume)


def add_overhead(results: Results, case: Case) -> None:
    """Columns of the host's share for the engine's row of `case`, if it has a time."""
    rows = [row for row in results.of_case(case.key) if row["peer"] == "engine" and row["status"] == OK]
    for row in rows:
        images = distinct_images(case.image_size)[rows_of_batch(case.batch)]
        engine = effnet_fast.InferenceEngine(
            seeded_model(case.model, case.image_size),
            batch_size=case.batch,
            image_size=case.image_size,
            dtype=case.torch_dtype,
        )
        found = host_overhead(engine, images.to(dtype=case.torch_dtype, memory_format=torch.channels_last))
        row.update(
            host_us=round(found.total, 2),
            host_program_us=round(found.program, 2),
            host_around_us=round(found.around, 2),
            host_dispatched_us=round(found.dispatched, 2),
            host_operators=found.operators,
        )


def latency_table(results: Results) -> Table:
    """A line for each peer of each case."""
    table = Table(
        title=f"milliseconds a call, {machine_text(results.environment)}",
        caption="over all calls of all rounds; vs: median over effnet_fast's",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("model", "batch", "dtype", "peer"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median", "p20", "p80", "p99", "calls", "vs"):
        table.add_column(heading, justify="right")
    for rows in cases_of(results.rows).values():
        engine = next((row for row in rows if row["peer"] == "engine" and row["status"] == OK), None)
        for row in rows:
            figures = [f"{row[name]:.3f}" for name in COLUMNS] if row["status"] == OK else []
            calls = [str(row["calls"])] if figures else []
            ratio = row["median_ms"] / engine["median_ms"] if figures and engine else None
            table.add_row(
                model_text(row),
                str(row["batch"]),
                SHORT_DTYPES[row["dtype"]],
                row["label"],
                *(figures or [str(row["status"]), "", "", ""]),
                *(calls or [""]),
                ratio_text(ratio),
            )
        table.add_section()
    return table


def show_latency(console: Console, results: Results, path: Path) -> None:
    """Print the table, the host's share, and what has no time."""
    console.print(latency_table(results))
    for note in notes(results):
        console.print(note, markup=False, highlight=False)
    for row in results.rows:
        if "host_us" in row:
            console.print(f"{row['case']}: {_host_text(row)}", markup=False, highlight=False)
    console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)


def _host_text(row: dict[str, object]) -> str:
    parts = (
        f"{row['host_operators']} operators {row['host_program_us']:.1f}, "
        f"one by one through the dispatcher they take {row['host_dispatched_us']:.0f}",
        f"checks, result and copy {row['host_around_us']:.1f}",
    )
    return f"host overhead of a call, kernels excluded: {row['host_us']:.1f} us ({'; '.join(parts)})"
