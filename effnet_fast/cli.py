"""The `effnet-fast` command: gathers its subcommands, and shows what this installation can do."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click
import torch
from rich.console import Console
from rich.table import Table

import effnet_fast
from effnet_fast import native
from effnet_fast.backends import Backend, device_type, supports
from effnet_fast.bench_command import bench
from effnet_fast.classify_command import classify
from effnet_fast.measure.chips import CHIPS
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.plan_command import DEFAULT_CHIP, show_plan
from effnet_fast.scale_command import models, scale
from effnet_fast.tune_command import tune

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(effnet_fast.__version__, prog_name="effnet-fast")
def main() -> None:
    """Fast EfficientNet inference."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option(
    "--plan",
    metavar="MODEL",
    help="Instead: how MODEL would run on a GPU, block by block. Predicted; no GPU is needed.",
)
@click.option("--batch", type=click.IntRange(1), help="Images at a time, for --plan.  [default: 64]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="Of maps, for --plan.  [default: float16]")
@click.option(
    "--chip",
    help=f"For --plan, by its data sheet: {', '.join(CHIPS)}.  "
    f"[default: the GPU at hand, measured, or {DEFAULT_CHIP}]",
)
def info(as_json: bool, plan: str | None, batch: int | None, dtype: str | None, chip: str | None) -> None:
    """Versions, native libraries, instruction sets of this machine, and what serves which operator."""
    if plan is not None:
        show_plan(plan, batch or 64, dtype or "float16", chip, as_json)
        return
    if given := [name for name, value in {"batch": batch, "dtype": dtype, "chip": chip}.items() if value]:
        raise click.UsageError(f"--{given[0]} is for --plan MODEL")
    record = installation()
    if as_json:
        click.echo(json.dumps(record, indent=1))
        return
    console = Console(highlight=False)
    for key, value in record["versions"].items():
        console.print(f"{key:12} {value}", markup=False)
    for name, state in record["backends"].items():
        console.print(f"{name:12} {state}", markup=False)
    for gpu in record["gpus"] or ["none that PyTorch sees"]:
        console.print(f"{'gpu':12} {gpu}", markup=False)
    for key, value in record["cpu"].items():
        console.print(f"{key:12} {value}", markup=False)
    for key, value in record["build"].items():
        console.print(f"{key:12} {value}", markup=False)
    console.print(_support_table())


def installation() -> dict[str, object]:
    """What `info` shows: versions, backends (available, or why not), GPUs, instruction sets, the build."""
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
        isa = native.cpu_isa()
        cpu = {"isa": isa, "isas": ", ".join(native.cpu_isas()), **cpu}
        if native.cpu_isa_is_forced():
            cpu["isa forced"] = f"by {native.CPU_ISA_VARIABLE}"
        if slow := native.slowness(isa):
            cpu["slow"] = slow
    return {
        "versions": versions,
        "backends": backends,
        "gpus": _gpus(),
        "cpu": cpu,
        "build": native.build_info(),
    }


def _gpus() -> list[str]:
    """Every GPU that PyTorch sees: a backend may be there without one."""
    try:
        of_all = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except RuntimeError as error:  # a driver that does not start is worth knowing, too
        return [f"not usable: {str(error).splitlines()[0]}"]
    return [f"{gpu.name} (compute capability {gpu.major}.{gpu.minor})" for gpu in of_all]


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


main.add_command(bench)
main.add_command(classify)
main.add_command(models)
main.add_command(scale)
main.add_command(tune)
