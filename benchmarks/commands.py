"""The command line of the benchmark suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks import limits, operator_tables, operators, readme
from benchmarks import photos as photographs
from benchmarks.allocator import settle_allocator
from benchmarks.blocks_command import blocks_command
from benchmarks.cases import describe_model, parse_dtypes, parse_numbers
from benchmarks.compare_command import compare, show_comparison
from benchmarks.console import (
    FOLDER,
    LOCAL,
    RESULTS,
    SECONDS,
    check_replaceable,
    new_console,
    refuse,
    run_sweep,
    shown_path,
    usage,
)
from benchmarks.contest import Job, rows_text
from benchmarks.devices import DEVICES, check_device
from benchmarks.fuse_command import fuse_command, show_alone, show_blocks, show_fuse
from benchmarks.ladder_command import run_ladder, show_ladder
from benchmarks.latency_command import latency
from benchmarks.layers import layer_cases
from benchmarks.memory_command import memory_command
from benchmarks.models_command import default_path, models, run_default, show_models
from benchmarks.profile_command import profile_command
from benchmarks.progress import Reporter
from benchmarks.report.command import report, write_local_page
from benchmarks.resources.command import resources
from benchmarks.results import ResultError, Results, load, save
from benchmarks.rows import OK
from benchmarks.runner import QUICK
from effnet_fast.images import ImageError
from effnet_fast.measure import describe

README = RESULTS.parent.parent / "README.md"
KERNELS = README.parent / "docs" / "kernels.md"

#: Length of one sample of a layer: there are hundreds.
OPS_SECONDS = 0.05


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Compare effnet_fast with stock PyTorch. Without a command: photos, then models, then the page."""
    if context.invoked_subcommand is None:
        agreed = run_photos(LOCAL)
        served = run_default()
        write_local_page([LOCAL / "photos.json", default_path()])
        context.exit(0 if agreed and served else 1)


@main.command()
@click.option("--out", type=FOLDER, default=LOCAL, help="Folder of the result files.")
def photos(out: Path) -> None:
    """Classify real photographs with real weights, stock PyTorch beside effnet_fast.

    Exit status 1 when the float32 top-5 differ anywhere, or the logits break the error budget.
    """
    if not run_photos(out):
        raise SystemExit(1)


def run_photos(out: Path) -> bool:
    """Part one of the main job; True when both agree."""
    console = new_console()
    try:
        paths = photographs.find_photographs()
        with console.status("photographs") as status:
            comparisons = photographs.compare(
                paths, photographs.COMPARED_DTYPES, lambda text: status.update(f"photographs: {text}")
            )
        results = Results("photos", describe(), {"rounds": photographs.ROUNDS}, "python -m benchmarks photos")
        results.rows = photographs.rows(paths, comparisons)
        check_replaceable(out / "photos.json", "photos")
        save(results, out / "photos.json")
    except (photographs.PhotographsMissing, FileNotFoundError, ImageError, ResultError) as error:
        raise refuse(error) from error
    console.print(photographs.guesses_table(paths, comparisons[0]))
    console.print(photographs.speed_table(len(paths), comparisons))
    agreed = all(photographs.agrees(comparison) for comparison in comparisons)
    console.print(
        "stock PyTorch and effnet_fast agree on every photograph (float32: same top-5 in the same order)"
        if agreed
        else "[bold red]stock PyTorch and effnet_fast disagree[/bold red]",
        highlight=False,
    )
    console.print(f"written: {shown_path(out / 'photos.json')}, .csv\n", markup=False, highlight=False)
    return agreed


@main.command("ops")
@click.option("--model", "models_", multiple=True, help="Repeatable.  [default: efficientnet_b0 and _b4]")
@click.option("--batch", help="Images per call.  [default: 1,32,256; on a CPU 1,16]")
@click.option("--dtype", help="[default: float16; on a CPU float32]")
@click.option("--device", type=click.Choice(DEVICES), help="[default: cuda where there is one]")
@click.option("--backend", help="Of this project, e.g. triton or cuda,triton.  [default: all that serve]")
@click.option("--operator", "only", multiple=True, help="Some operators alone; repeatable.")
@click.option("--compiled/--no-compiled", default=True, help="Compare with torch.compile, too.")
@click.option("--resume", is_flag=True, help="Keep the finished layers of the result file.")
@click.option("--limit-minutes", type=click.FloatRange(0), help="Begin no further layer after this.")
@click.option("--rounds", type=click.IntRange(3), help="[default: 5; with --full 7]")
@click.option("--min-seconds", type=SECONDS, help="Length of one sample.  [default: 0.05; ladder: 0.2]")
@click.option("--out", type=FOLDER, help="Folder of the result files.")
@click.option("--ladder", is_flag=True, help="One MBConv block instead, from stock PyTorch to one kernel.")
@click.option("--block", help="With --ladder: which one, e.g. stages.2.1.  [default: the costliest]")
@click.option("--full", is_flag=True, help="With --ladder: longer rounds, into results/<device>/.")
def ops_command(
    models_: tuple[str, ...],
    batch: str | None,
    dtype: str | None,
    device: str | None,
    backend: str | None,
    only: tuple[str, ...],
    compiled: bool,
    resume: bool,
    limit_minutes: float | None,
    rounds: int | None,
    min_seconds: float | None,
    out: Path | None,
    ladder: bool,
    block: str | None,
    full: bool,
) -> None:
    """Time every distinct layer by itself: checked, then against stock PyTorch and the copy bandwidth.

    With --ladder one block as a whole: eager, folded, compiled, convolutions with their activations, three
    kernels, the expansion fused, one kernel, and the floor under them.

    Exit status 1 when a layer fails its check or breaks off; 2 for a wrong option or an unusable result file.
    Ctrl-C keeps every finished layer, and of the one under way the complete rounds if there are three.
    """
    device = usage(check_device, device)
    if ladder:
        others = {"--backend": backend, "--operator": only, "--limit-minutes": limit_minutes}
        for option in (option for option, value in others.items() if value not in (None, ())):
            raise click.UsageError(f"--ladder and {option} exclude each other")
        run_ladder(
            models_, block, batch, dtype, device, compiled=compiled, full=full, resume=resume, rounds=rounds,
            min_seconds=min_seconds, out=out,
        )  # fmt: skip
        return
    for option in (option for option, value in {"--block": block, "--full": full}.items() if value):
        raise click.UsageError(f"{option} goes with --ladder")
    names = models_ or ("efficientnet_b0", "efficientnet_b4")
    batch = batch or ("1,32,256" if device == "cuda" else "1,16")
    dtype = dtype or ("float16" if device == "cuda" else "float32")
    batches, dtypes = usage(parse_numbers, batch, name="--batch"), usage(parse_dtypes, dtype)
    ours = (
        usage(operators.parse_backends, backend, device) if backend else operators.available_backends(device)
    )
    for name in names:
        usage(describe_model, name)
    cases = layer_cases(names, batches, dtypes, only)
    if not cases:
        raise click.UsageError(f"--operator: no layer of {', '.join(names)} is computed by {', '.join(only)}")
    jobs = [
        Job(case, (*ours, *operators.stock_peers(case.layer.operator, device, compiled=compiled)))
        for case in cases
    ]
    settings = replace(
        QUICK, rounds=rounds or 5, min_seconds=OPS_SECONDS if min_seconds is None else min_seconds,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    options = [
        *(f"--model {name}" for name in names), f"--batch {batch}", f"--dtype {dtype}", f"--device {device}",
        f"--backend {backend}" if backend else "", *(f"--operator {name}" for name in only),
        "" if compiled else "--no-compiled",
    ]  # fmt: skip
    fresh = Results(
        "operators",
        describe(device=device),
        {**settings.record(), "allocator": settle_allocator()},
        " ".join(["python -m benchmarks ops", *filter(None, options)]),
    )
    console, path = new_console(), (out or LOCAL) / f"operators-{device}.json"
    reporter = Reporter(console, title=operators.case_title, text=rows_text)

    def run(pending: list[Job], results: Results) -> int:
        if not pending:
            return 0
        console.print(
            f"{len(pending)} layers to measure; first, the ceilings of this machine", highlight=False
        )
        copy = limits.copy_bandwidth(device)
        measured = {name: limits.measure_limits(device, name, copy=copy) for name in dtypes}
        runner = operators.OperatorRunner(settings, reporter, device, measured)
        deadline = None if limit_minutes is None else 60 * limit_minutes
        return runner.run(pending, results, lambda: save(results, path), deadline_seconds=deadline)

    rows = run_sweep(console, path, fresh, jobs, run, _show_operators, resume=resume)
    if any(row["status"] != OK for row in rows if row["group"] == "ours"):
        raise SystemExit(1)


def _show_operators(console: Console, results: Results, path: Path) -> None:
    console.print(operator_tables.operators_table(results))
    for note in operator_tables.notes(results):
        console.print(note, markup=False, highlight=False)
    console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)


@main.command("readme")
@click.argument("results", required=False, type=click.Path(path_type=Path))
@click.option("--readme", "target", type=click.Path(path_type=Path, dir_okay=False), default=README)
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 when a table is out of date.")
def readme_command(results: Path | None, target: Path, check: bool) -> None:
    """Write the measured table of the README from a result file.

    Without one: from the committed ones, and the support matrix, and the ladders of docs/kernels.md, from
    theirs; and draw the pictures that these documents show anew.
    """
    try:
        given = readme.markdown_table(load(results, kind="models")) if results else None
        table = given or readme.committed_tables(RESULTS)
        texts = {target: readme.update_readme(target.read_text(encoding="utf-8"), table)}
        if results is None:
            texts[target] = readme.update_fuse(texts[target], readme.committed_fuse(RESULTS))
            ladders = readme.committed_ladders(RESULTS)
            texts[KERNELS] = readme.update_ladders(KERNELS.read_text(encoding="utf-8"), ladders)
    except (ResultError, OSError) as error:
        raise refuse(error) from error
    outdated = {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}
    if check and outdated:
        names = ", ".join(shown_path(path) for path in outdated)
        raise click.ClickException(f"{names} is out of date: run python -m benchmarks readme")
    for path, text in outdated.items():
        path.write_text(text, encoding="utf-8")
    if results is None and not check:
        for path in readme.draw_pictures(RESULTS):
            new_console().print(f"drawn: {shown_path(path)}", markup=False, highlight=False)


#: What `show` can show, by the kind of result file.
SHOWN = {
    "models": show_models,
    "ladder": show_ladder,
    "compare": show_comparison,
    "fuse": show_fuse,
    "fuse-blocks": show_blocks,
    "fuse-alone": show_alone,
}


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
def show(results: Path) -> None:
    """Print the table of a result file, and draw its picture anew where it has one."""
    try:
        found = load(results)
        if found.kind not in SHOWN:
            raise ResultError(
                f"{results}: holds results of kind {found.kind!r}; needed: {' or '.join(SHOWN)}"
            )
    except ResultError as error:
        raise refuse(error) from error
    SHOWN[found.kind](new_console(), found, results)


for command in (
    models,
    compare,
    latency,
    memory_command,
    profile_command,
    report,
    blocks_command,
    fuse_command,
    resources,
):
    main.add_command(command)
