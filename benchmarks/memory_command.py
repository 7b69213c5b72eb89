"""`python -m benchmarks memory`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from benchmarks import memory
from benchmarks.cases import parse_dtypes, parse_numbers, sweep
from benchmarks.console import FOLDER, new_console, result_path, run_sweep, shown_path, usage
from benchmarks.devices import DEVICES, check_device
from benchmarks.progress import Reporter
from benchmarks.results import Results, save
from benchmarks.rows import OK
from benchmarks.runner import run_jobs
from effnet_fast.measure import describe

MODELS = ("efficientnet_b0", "efficientnet_b4", "efficientnet_b7")


@click.command("memory")
@click.option("--model", "names", multiple=True, help=f"Repeatable.  [default: {', '.join(MODELS)}]")
@click.option("--batch", help="Images per call.  [default: 1,4; on a GPU 1,32]")
@click.option("--dtype", help="[default: float32,bfloat16; on a GPU float16]")
@click.option("--device", type=click.Choice(DEVICES), help="[default: cuda where there is one]")
@click.option("--full", is_flag=True, help="Write into results/<device>/.")
@click.option("--resume", is_flag=True, help="Keep the finished cases of the result file.")
@click.option("--out", type=FOLDER, help="Folder of the result files.")
def memory_command(
    names: tuple[str, ...],
    batch: str | None,
    dtype: str | None,
    device: str | None,
    full: bool,
    resume: bool,
    out: Path | None,
) -> None:
    """Compare the peak of activation memory: eager PyTorch, the three-kernel plan, and the engine's own.

    Exit status 1 when something could not be measured.
    """
    chosen = usage(check_device, device)
    on_gpu = chosen == "cuda"
    batches = usage(parse_numbers, batch or ("1,32" if on_gpu else "1,4"), name="--batch")
    dtypes = usage(parse_dtypes, dtype or ("float16" if on_gpu else "float32,bfloat16"))
    cases = usage(sweep, names or MODELS, batches, dtypes, chosen)
    options = [
        *(f"--model {name}" for name in names),
        f"--batch {batch}" if batch else "",
        f"--dtype {dtype}" if dtype else "",
        f"--device {device}" if device else "",
        "--full" if full else "",
    ]
    command = " ".join(["python -m benchmarks memory", *filter(None, options)])
    path = result_path("memory", chosen, full=full, out=out)
    fresh = Results("memory", describe(device=chosen), {}, command)
    reporter = Reporter(new_console(), text=_rows_text)
    jobs = [memory.Job(case) for case in cases]
    runner = memory.MemoryRunner(chosen)

    def run(pending: list[memory.Job], results: Results) -> int:
        return run_jobs(pending, runner, results, lambda: save(results, path), reporter)

    rows = run_sweep(reporter.console, path, fresh, jobs, run, _show, resume=resume)
    if any(row["status"] != OK for row in rows):
        raise SystemExit(1)


def _rows_text(rows: list[dict[str, object]]) -> str:
    shares = [f"{row['peer']} {row['ratio']:.3f}" for row in rows[1:] if "ratio" in row]
    return "of eager's peak: " + ", ".join(shares)


def _show(console: Console, results: Results, path: Path) -> None:
    console.print(memory.memory_table(results.rows, results.environment))
    for row in results.rows:
        if row["status"] != OK:
            console.print(f"{row['label']}, {row['case']}: {row['reason']}", markup=False, highlight=False)
    console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)
