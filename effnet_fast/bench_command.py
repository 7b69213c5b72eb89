"""``effnet-fast bench``: is it faster for my model on my machine?"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from effnet_fast.bench_subject import OURS, Gate, Subject, find_subject
from effnet_fast.fusion.fuse import find, fuse
from effnet_fast.inference import InferenceEngine
from effnet_fast.measure import (
    SAME_RUN_FLOOR,
    CallBatches,
    Candidate,
    LocalCandidate,
    Summary,
    Verdict,
    alternate,
    compare_times,
    describe,
)

__all__ = ["bench"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEFAULT_BATCH = {"cpu": 1, "cuda": 32}
DEFAULT_DTYPE = {"cpu": "float32", "cuda": "float16"}

# Nine rounds: with fewer the rule of `compare_times` asks for more than the spread. Three candidates of
# 0.4 s are 11 s; a large model ends with the round in which 40 s are over.
ROUNDS, SAMPLE_SECONDS, BUDGET_SECONDS = 9, 0.4, 40.0
INTERRUPTED = 130

US = "effnet_fast"


class _Refusal(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


class _NothingToFuse(Exception):
    """`fuse` leaves the model as it is."""


@dataclass
class _Row:
    """A line of the table: `call` where it is ready, `verdict` where it has answered, `times` when timed.

    `error`: it broke off, and `note` says how.
    """

    name: str
    note: str = ""
    error: bool = False
    call: Callable[[], Tensor] | None = None
    verdict: Verdict | None = None
    times: Summary | None = None

    @property
    def passed(self) -> bool:
        return self.verdict is not None and self.verdict.passed


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--batch", type=click.IntRange(1), help="Images per call.  [default: 1; on a GPU 32]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="[default: float32; on a GPU float16]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]")
@click.option("--image-size", type=click.IntRange(8), help="Side in pixels.  [default: the model's own]")
@click.option("--compile", "compiled", is_flag=True, help="Against torch.compile, too: up to a minute more.")
def bench(
    name: str,
    batch: int | None,
    dtype: str | None,
    device: str | None,
    image_size: int | None,
    compiled: bool,
) -> None:
    """Is it faster for MODEL on this machine? Stock PyTorch against this package: one table, one sentence.

    MODEL is one of `effnet-fast models`, which runs as an InferenceEngine, or of timm or torchvision
    where they are installed ("timm:NAME" for that library alone), which runs as `effnet_fast.fuse` gives
    it back. All have the same random weights and images, are checked against float64 first, and then
    timed in turn.

    Exit status 1 when this package fails its check or breaks off; 2 for an unknown model or a wrong
    option. Ctrl-C keeps the finished rounds.
    """
    device = _device(device)
    dtype = dtype or DEFAULT_DTYPE[device]
    batch = batch or DEFAULT_BATCH[device]
    console, side = _console(), _console(stderr=True)
    with side.status("weights and float64 logits") as status:
        try:
            subject = find_subject(name, image_size)
            gate = Gate(subject, batch, DTYPES[dtype])
        except (ValueError, RuntimeError) as error:
            raise _Refusal(" ".join(str(error).split())) from error
        rows = [_Row("eager NCHW"), _Row("eager channels_last"), _Row(US)]
        if compiled:
            rows.insert(2, _Row("torch.compile"))
        interrupted = _measure(rows, subject, gate, DTYPES[dtype], device, status.update)
    console.print(_title(subject, batch, dtype, device), markup=False, soft_wrap=True)
    console.print(_table(rows, batch))
    for row in rows:
        if row.note:
            console.print(f"{row.name}: {row.note}", markup=False)
    console.print(f"[bold]{escape(_sentence(rows, subject))}[/bold]", soft_wrap=True)
    if interrupted:
        raise SystemExit(INTERRUPTED)
    ours = rows[-1]
    raise SystemExit(1 if ours.error or (ours.verdict is not None and not ours.passed) else 0)


def _console(*, stderr: bool = False) -> Console:
    """As wide as the terminal; elsewhere wide enough that no line of a log is broken."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=140)


def _device(device: str | None) -> str:
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise _Refusal("PyTorch finds no CUDA GPU on this machine: use --device cpu")
    return device or ("cuda" if there else "cpu")


def _measure(
    rows: list[_Row],
    subject: Subject,
    gate: Gate,
    dtype: torch.dtype,
    device: str,
    say: Callable[[str], None],
) -> bool:
    """Prepare and check each of `rows`, then time those that passed; True when Ctrl-C ended it."""
    if device == "cuda":
        # The fastest kernels, and float32 that means float32: TF32 is 1000 times what the gate allows.
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    interruptions: list[bool] = []
    try:
        for row in rows:
            say(f"{row.name}: preparing and checking")
            _prepare(row, subject, gate, dtype, device)
        timed = {row.name: row for row in rows if row.passed}
        summaries = alternate(
            {name: _candidate(row.call, device) for name, row in timed.items()},
            rounds=ROUNDS,
            min_seconds=SAMPLE_SECONDS,
            budget_seconds=BUDGET_SECONDS,
            on_sample=lambda index, name: say(f"{name}: round {index + 1} of {ROUNDS}"),
            on_interrupt=lambda: interruptions.append(True),
        )
        for name, summary in summaries.items():
            timed[name].times = summary
    except KeyboardInterrupt:
        return True
    return bool(interruptions)


def _prepare(row: _Row, subject: Subject, gate: Gate, dtype: torch.dtype, device: str) -> None:
    try:
        row.call, row.note = _PREPARE[row.name](subject, gate.images.to(device), dtype)
        logits = row.call().detach().to("cpu", copy=True)
    except _NothingToFuse as nothing:
        row.note = str(nothing)
    except Exception as error:  # whatever it raises is its result, and the others have theirs
        row.note, row.error = f"{type(error).__name__}: {error}".strip().splitlines()[0], True
    else:
        row.verdict = gate.judge(logits)
        if not row.passed:
            row.note = f"FAIL: {row.verdict.reason}"


def _candidate(call: Callable[[], Tensor], device: str) -> Candidate:
    """On a CPU timed call by call, on a GPU in batches that keep its queue full."""
    return LocalCandidate(call) if device == "cpu" else CallBatches(call, synchronize=torch.cuda.synchronize)


def _inference(model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.inference_mode():
            return model(images)

    return call


def _eager(subject: Subject, images: Tensor, dtype: torch.dtype) -> tuple[Callable[[], Tensor], str]:
    return _inference(copy.deepcopy(subject.model).to(images.device, dtype), images.to(dtype)), ""


def _channels_last(subject: Subject, images: Tensor, dtype: torch.dtype) -> tuple[Callable[[], Tensor], str]:
    layout = {"dtype": dtype, "memory_format": torch.channels_last}
    model = copy.deepcopy(subject.model).to(images.device, **layout)
    return _inference(model, images.to(**layout)), ""


def _compiled(subject: Subject, images: Tensor, dtype: torch.dtype) -> tuple[Callable[[], Tensor], str]:
    import torch._inductor.config

    layout = {"dtype": dtype, "memory_format": torch.channels_last}
    model, images = copy.deepcopy(subject.model).to(images.device, **layout), images.to(**layout)
    compiled = torch.compile(model, dynamic=False)

    def call() -> Tensor:
        with torch.no_grad():
            return compiled(images)

    with torch._inductor.config.patch(freezing=True):  # up to 1.6 times as fast; read when it compiles
        call()
    return call, ""


def _ours(subject: Subject, images: Tensor, dtype: torch.dtype) -> tuple[Callable[[], Tensor], str]:
    images = images.to(dtype=dtype, memory_format=torch.channels_last)
    model = copy.deepcopy(subject.model)
    if subject.library == OURS:
        engine = InferenceEngine(
            model.to(images.device), batch_size=len(images), image_size=subject.image_size, dtype=dtype
        )
        engine.warmup()
        return lambda: engine(images), ""
    model = model.to(images.device, dtype, memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of nothing to fuse, which is said below
        fused = fuse(model, inplace=True)
    found = list(find(fused))
    count = sum(item.fused for item in found)
    if not count:
        reasons = "; ".join(dict.fromkeys(item.reason for item in found if item.reason))
        raise _NothingToFuse(f"fuse() finds nothing to fuse in this model ({reasons[:200]})")
    left = len(found) - count
    return _inference(
        fused, images
    ), f"{count} parts fused, {left} left as they are (effnet_fast.fusion_report)"


_PREPARE = {
    "eager NCHW": _eager,
    "eager channels_last": _channels_last,
    "torch.compile": _compiled,
    US: _ours,
}


def _title(subject: Subject, batch: int, dtype: str, device: str) -> str:
    where = describe(device=device)
    machine = where["gpu"] or f"{where['cpu']}, {where['threads']} threads"
    shape = f"{subject.image_size} x {subject.image_size}, batch {batch}, {dtype}"
    return f"{subject.name} ({subject.library}), {shape}; {machine}, torch {torch.__version__}"


def _table(rows: list[_Row], batch: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading in ("ms a call", "±", "images/s", f"{US} vs it", "check"):
        table.add_column(heading, justify="right", no_wrap=True)
    ours = rows[-1].times
    for row in rows:
        cells = ["-"] * 4
        if row.times is not None:
            median = row.times.median
            cells[:3] = f"{1e3 * median:.3g}", f"{50 * row.times.spread:.1f}%", f"{batch / median:.4g}"
            if ours is not None and row is not rows[-1]:
                found = compare_times(row.times, ours, floor=SAME_RUN_FLOOR)
                cells[3] = f"({found.ratio:.2f}x) =" if found.noise else f"{found.ratio:.2f}x"
        check = "-" if row.verdict is None else "ok" if row.passed else "FAIL"
        table.add_row(row.name, *cells, check)
    return table


def _sentence(rows: list[_Row], subject: Subject) -> str:
    """The answer: against the fastest of the others, or why there is none."""
    ours, others = rows[-1], [row for row in rows[:-1] if row.times is not None]
    if ours.verdict is not None and not ours.passed:
        return f"{US} computes something else than stock PyTorch here, which is a fault of ours: no time."
    if ours.error:
        return (
            f"{US} does not run {subject.name} here, which is a fault of ours or a want of memory: no time."
        )
    if ours.call is None and ours.note:
        return f"{US} does nothing for {subject.name} here: {ours.note}."
    if ours.times is None or not others:
        return "Interrupted before three rounds were complete: no answer yet."
    best = min(others, key=lambda row: row.times.median)
    found = compare_times(best.times, ours.times, floor=SAME_RUN_FLOOR)
    figures = f"{1e3 * ours.times.median:.3g} instead of {1e3 * best.times.median:.3g} ms a call"
    if found.noise:
        return f"No difference beyond noise: {US} takes {figures} of the fastest other, {best.name}."
    if found.ratio > 1:
        return f"{US} is {found.ratio:.2f} times as fast as the fastest other, {best.name}: {figures}."
    return f"{US} is slower here than {best.name}: {figures}."
