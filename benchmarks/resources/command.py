"""``python -m benchmarks resources``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.resources import cuda, cuda_rules, keys, rules
from benchmarks.resources import cuda_report as cuda_reports
from benchmarks.resources.report import FOLDER, Report, save

#: Each takes 0.6 GB, most of it PyTorch and the compiler.
PROCESSES = 2

#: Compilations between two lines of progress where there is no terminal for a bar.
LINE_EVERY = 100


@click.command()
@click.option("--backend", type=click.Choice(["triton", "cuda"]), help="[default: both]")
@click.option(
    "--device", "names", multiple=True, help="sm_80, ..., gfx942; repeatable.  [default: all of them]"
)
@click.option("--processes", default=PROCESSES, show_default=True, type=click.IntRange(1))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, help="Folder of the report."
)
def resources(backend: str | None, names: tuple[str, ...], processes: int, out: Path) -> None:
    """Compile every GPU kernel of B0..B7 for GPUs that need not be there, and report what they take.

    Exit status 1 when a kernel breaks a rule: spills, too much shared memory, a missing matrix instruction,
    TF32, too many compilations, too many instructions for an output. The report is written all the same.
    """
    known = keys.devices()
    if unknown := set(names) - set(known):
        raise click.UsageError(f"unknown device {', '.join(unknown)}; known: {', '.join(known)}")
    console = Console(soft_wrap=True)
    reports = {"triton": triton_report, "cuda": cuda_report}
    sentences = []
    for make in reports.values() if backend is None else [reports[backend]]:
        sentences += make(names or list(known), processes, out, console)
    for sentence in sentences:
        console.print(sentence, style="red", markup=False, highlight=False)
    console.print(f"{len(sentences)} rules broken" if sentences else "every rule holds")
    if sentences:
        raise SystemExit(1)


def triton_report(names: Sequence[str], processes: int, out: Path, console: Console) -> list[str]:
    """Write triton.json and triton.md; sentences about rules that are broken."""
    from effnet_fast import native

    if reason := native.reason("triton"):
        raise click.UsageError(reason)
    if native.INTERPRETS_TRITON:
        raise click.UsageError("TRITON_INTERPRET=1 is set: interpreting and compiling do not mix")
    from effnet_fast.triton_kernels import offline

    with console.status("collecting the layers of B0..B7"):
        wanted = keys.wanted(names)
    report = Report(offline.versions(), compile_all(wanted, processes, console))
    _say(save(report, out), report, console)
    return rules.broken(report.rows, {name: device.shared_bytes for name, device in keys.devices().items()})


def cuda_report(names: Sequence[str], processes: int, out: Path, console: Console) -> list[str]:
    """Write cuda.json and cuda.md, for those of `names` that are NVIDIA's; sentences as above."""
    wanted = cuda.units([name for name in names if name in cuda.devices()])
    try:
        with _progress(console) as progress:
            task = progress.add_task("", total=len(wanted))
            rows = cuda.compile_units(
                wanted, processes, lambda unit: progress.update(task, advance=1, description=unit.title)
            )
        report = Report(cuda.versions(), rows)
    except cuda.ToolkitError as error:
        raise click.ClickException(str(error)) from error
    _say(save(report, out, "cuda", cuda_reports.markdown(report)), report, console)
    return cuda_rules.broken(report.rows)


def _say(paths: Sequence[Path], report: Report, console: Console) -> None:
    for path in paths:
        console.print(f"written: {path}", markup=False, highlight=False)
    console.print(f"{len(report.rows)} kernels", highlight=False)


def _progress(console: Console) -> Progress:
    columns = MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    return Progress(*columns, console=console, transient=True)


def compile_all(wanted: Sequence[keys.Wanted], processes: int, console: Console) -> list[dict[str, object]]:
    """A row for each of `wanted`, in its order, compiled side by side."""
    rows: dict[int, dict[str, object]] = {}
    # A fresh interpreter each: the compiler does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context) as pool,
        _progress(console) as progress,
    ):
        task = progress.add_task("", total=len(wanted))
        futures = {pool.submit(compile_one, item): index for index, item in enumerate(wanted)}
        try:
            for future in as_completed(futures):
                index = futures[future]
                rows[index] = future.result()
                progress.update(task, advance=1, description=wanted[index].title[: console.width // 2])
                if not console.is_terminal and len(rows) % LINE_EVERY == 0:
                    console.print(f"{len(rows)} of {len(wanted)}", highlight=False)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [rows[index] for index in range(len(wanted))]


def compile_one(item: keys.Wanted) -> dict[str, object]:
    """The row of one compilation; runs in a process of its own."""
    from effnet_fast.triton_kernels import offline

    try:
        facts = offline.facts(offline.compile_key(item.key, keys.devices()[item.device]))
    except Exception as error:
        # Errors of the compiler do not survive the way back; which kernel it was must.
        raise RuntimeError(f"{item.title} does not compile: {type(error).__name__}: {error}") from None
    place = {"device": item.device, "operator": item.operator}
    served = {"storages": list(item.storages), "layers": item.layers}
    return {**place, **item.key.record(), **served, **asdict(facts)}
