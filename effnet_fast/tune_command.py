"""``effnet-fast tune``: measure which blocks of the Triton kernels are fastest on the GPU at hand."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import effnet_fast
from effnet_fast import native
from effnet_fast.inference.folding import fold
from effnet_fast.inference.kernel_calls import KernelCall, model_calls
from effnet_fast.inference.measure_plans import measure_blocks
from effnet_fast.inference.tuned_plans import BlockTimes, TunedPlan, TunedPlanError, load_plan, save_plan
from effnet_fast.inference.tuned_plans import file_name as plan_file_name
from effnet_fast.models import create_model, list_models, model_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _Refusal(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--batch-size", "batches", multiple=True, type=click.IntRange(1), help="Repeatable.  [default: 1, 32]"
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(list(DTYPES)),
    help="Repeatable.  [default: float16]",
)
@click.option(
    "--output",
    default=Path("tuned"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the result; name it in EFFNET_FAST_TUNED_DIR to use it.",
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on with what is in the folder."
)
@click.option(
    "--plans",
    is_flag=True,
    help="Instead: measure which form of each MBConv block is faster; see docs/planning.md.",
)
@click.option("--limit-minutes", type=click.FloatRange(0, min_open=True), help="Begin no problem after that.")
def tune(
    models: tuple[str, ...],
    batches: tuple[int, ...],
    dtypes: tuple[str, ...],
    output: Path,
    resume: bool,
    plans: bool,
    limit_minutes: float | None,
) -> None:
    """Search the fastest blocks of the Triton kernels for MODELs (default: efficientnet_b0) on this GPU.

    Every candidate must give the result of the built-in choice before it is timed. An interruption loses
    nothing: the same command goes on.
    """
    deadline = None if limit_minutes is None else time.monotonic() + 60 * limit_minutes
    models = models or ("efficientnet_b0",)
    if unknown := [name for name in models if name not in list_models()]:
        raise _Refusal(f"no model is called {unknown[0]!r}; see `effnet-fast models`")
    if plans:
        if not torch.cuda.is_available():
            raise _Refusal("tuning measures on a GPU, and PyTorch finds none on this machine")
        device = torch.device("cuda", torch.cuda.current_device())
        name = torch.cuda.get_device_name(device)
        finished = tune_plans(
            models,
            batches or (1, 32),
            dtypes or ("float16",),
            output,
            device,
            name,
            resume=resume,
            deadline=deadline,
        )
        if not finished:
            click.echo("the time is up", err=True)
        return
    if reason := native.reason("triton"):
        raise _Refusal(reason)
    if native.INTERPRETS_TRITON or not torch.cuda.is_available():
        raise _Refusal("tuning measures on a GPU, and PyTorch finds none on this machine")
    from effnet_fast.measure.device_timing import DeviceTimer

    timer = DeviceTimer()
    finished = run(
        _calls(models, batches or (1, 32), dtypes or ("float16",)),
        place=torch.device("cuda", torch.cuda.current_device()),
        measure=lambda launches: timer(lambda: [launch.run() for launch in launches]),
        output=output,
        resume=resume,
        deadline=deadline,
        console=Console(stderr=True, highlight=False),
    )
    if not finished:
        click.echo("the time is up; the same command goes on", err=True)


def tune_plans(
    models: Sequence[str],
    batches: Sequence[int],
    dtypes: Sequence[str],
    output: Path,
    device: torch.device,
    device_name: str,
    measure: Callable[..., list[BlockTimes]] = measure_blocks,
    *,
    resume: bool = True,
    deadline: float | None = None,
) -> bool:
    """Measure both forms of the blocks of `models` on `device`, into the file of the device; False when the
    deadline came first.

    `resume`: what the file has and is not measured again stays.
    """
    path = output / plan_file_name(device_name)
    try:
        entries = load_plan(path, device_name).entries if resume and path.exists() else ()
    except TunedPlanError as error:
        raise _Refusal(str(error)) from error
    found = {(entry.shape, entry.images, entry.dtype): entry for entry in entries}
    output.mkdir(parents=True, exist_ok=True)
    for name in models:
        network, side = fold(create_model(name).eval()), model_config(name).resolution
        for dtype in dtypes:
            for images in batches:
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                taken = measure(network, (side, side), images=images, dtype=DTYPES[dtype], device=device)
                found |= {(entry.shape, entry.images, entry.dtype): entry for entry in taken}
                # After each, so that an interruption loses nothing.
                save_plan(path, TunedPlan(device_name, tuple(found.values())), _versions())
                click.echo(f"measured: {name}, {images} images, {dtype} ({len(taken)} blocks)", err=True)
    click.echo(f"written: {path} ({len(found)} blocks)")
    return True


def _calls(models: Sequence[str], batches: Sequence[int], dtypes: Sequence[str]) -> Iterator[KernelCall]:
    for dtype in dtypes:
        for name in models:
            for images in batches:
                yield from model_calls(name, images, DTYPES[dtype], torch.uint8)


def run(
    calls: Iterator[KernelCall],
    *,
    place: torch.device,
    measure: Any,
    output: Path,
    resume: bool,
    deadline: float | None,
    console: Console,
) -> bool:
    """Tune the problems of `calls` and write the file of the device; False when the deadline came first."""
    from effnet_fast.triton_kernels import device as devices
    from effnet_fast.triton_kernels.configs import tuned
    from effnet_fast.triton_kernels.tune import Log, best, search, tasks_of

    device = devices.of(place)
    path = output / tuned.file_name(device)
    try:
        log = Log.open(path.with_suffix(".jsonl"), device, _versions(), resume=resume)
    except tuned.TunedError as error:
        raise _Refusal(str(error)) from error
    with console.status("collecting problems"):
        tasks = tasks_of(calls, device)
    columns = MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            finished = search(
                tasks, device, place, measure, log, _Observer(progress, console), deadline=deadline
            )
    finally:  # also after Ctrl-C: what is measured counts
        entries = best(log)
        if entries:
            output.mkdir(parents=True, exist_ok=True)
            tuned.save(path, device, log.versions, entries)
            click.echo(f"written: {path} ({len(entries)} problems)")
    return finished


def _versions() -> dict[str, str]:
    versions = {"effnet_fast": effnet_fast.__version__, "torch": torch.__version__}
    if not native.reason("triton"):
        import triton

        versions["triton"] = triton.__version__
    return versions


class _Observer:
    """Shows a search on a terminal."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._task = progress.add_task("", total=None)

    def begin(self, task: Any, done: int, total: int) -> None:
        self._progress.update(
            self._task,
            completed=done,
            total=total,
            description=f"{task.problem.operator} {_short(task.problem)}",
        )

    def dropped(self, task: Any, config: Any, reason: str) -> None:
        what = f"{task.problem.operator} {_short(task.problem)}, {_short(config)}"
        self._console.print(f"dropped: {what}: {reason}", markup=False)


def _short(value: Any) -> str:
    """``Problem(images=1, rows=49)`` gives ``images=1, rows=49``."""
    return re.sub(r"^\w+\((.*)\)$", r"\1", repr(value))
