"""``effnet-fast models`` and ``effnet-fast scale``: what networks cost, and networks of any cost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict

import click
import torch
from rich.console import Console
from rich.table import Table

from effnet_fast.models import EfficientNetConfig, list_models, model_config
from effnet_fast.models.families import BASES
from effnet_fast.models.formula import ALPHA, BASE_RESOLUTION, BETA, GAMMA
from effnet_fast.scaling import (
    PLANS,
    Budgeted,
    Counts,
    count,
    deviation_table,
    deviations,
    phi_for_budget,
    scaled_model_config,
)
from effnet_fast.scaling.published import published

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_HEADINGS = {"eager": "eager", "three_kernels": "three kernels", "expansion_fused": "expansion fused"}
_SUFFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}

# Errors that are the user's to mend; anything else is a fault of ours and keeps its traceback.
_USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


class _Refusal(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


class _Amount(click.ParamType):
    """A number with an optional k, M, G or T: 390M, 1.5G, 2e9."""

    name = "amount"

    def convert(self, value, param, ctx):
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)([kmgt]?)", value.strip().lower())
        try:
            return float(match[1]) * _SUFFIXES[match[2]]
        except (TypeError, ValueError):
            self.fail(f"{value!r} is no number such as 2e9, 390M or 1.5G", param, ctx)


class _Device(click.ParamType):
    """cpu, cuda or cuda:<number>."""

    name = "device"

    def convert(self, value, param, ctx):
        if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
            self.fail(f"{value!r} is none of cpu, cuda, cuda:0, cuda:1...", param, ctx)
        return value


@click.command("models")
@click.argument("pattern", default="*")
@click.option(
    "--dtype", default="float16", show_default=True, type=click.Choice(list(DTYPES)), help="Of bytes."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and model.")
def models(pattern: str, dtype: str, as_json: bool) -> None:
    """Models whose name matches PATTERN (shell wildcards): their scaling, and what they cost an image.

    Bytes are those of activations, read and written, by plan: stock kernels one by one (eager), three kernels
    a block, and the expansion fused into the depthwise convolution.
    """
    names = list_models(pattern)
    if not names:
        raise _Refusal(
            f"no model matches {pattern!r}: `effnet-fast models` shows all, and `effnet-fast scale` any phi"
        )
    table = Table(
        caption=f"multiply-adds and MB of {dtype} activations, read and written: an image",
        caption_justify="left",
    )
    table.add_column("model", no_wrap=True)
    for heading in ("phi", "depth", "width", "image", "parameters", "multiply-adds", *_HEADINGS.values()):
        table.add_column(heading, justify="right")
    for name in names:
        config, scaled = model_config(name), published(name)
        counts = count(config, dtype=DTYPES[dtype])
        if as_json:
            used = None if scaled is None else scaled.coefficients
            record = {
                "name": name,
                "phi": None if scaled is None else scaled.index,
                "depth": None if used is None else used.depth,
                "width": None if used is None else used.width,
                **_counts_record(counts),
            }
            click.echo(json.dumps(record))
            continue
        table.add_row(
            name,
            "" if scaled is None or scaled.index is None else str(scaled.index),
            "" if scaled is None else f"{scaled.coefficients.depth:g}",
            "" if scaled is None else f"{scaled.coefficients.width:g}",
            str(config.resolution),
            f"{counts.parameters / 1e6:.2f} M",
            f"{counts.macs / 1e9:.2f} G",
            *(f"{counts.activation_bytes[plan] / 1e6:.1f}" for plan in PLANS),
        )
    if not as_json:
        _show(table)


@click.command("scale")
@click.option("--phi", type=float, help="Scale by this phi.")
@click.option("--macs", type=_Amount(), help="Largest network of at most so many multiply-adds, e.g. 1.5G.")
@click.option("--params", type=_Amount(), help="Of at most so many parameters, e.g. 20M.")
@click.option("--memory-mb", type=_Amount(), help="Whose engine takes at most so many megabytes.")
@click.option(
    "--latency-ms", type=_Amount(), help="Whose engine takes at most so many milliseconds a call, here."
)
@click.option(
    "--deviations",
    "show_deviations",
    is_flag=True,
    help="Show where the published networks deviate from the formula.",
)
@click.option("--base", default="efficientnet", show_default=True, type=click.Choice(list(BASES)))
@click.option("--alpha", default=ALPHA, show_default=True, help="Growth of depth.")
@click.option("--beta", default=BETA, show_default=True, help="Growth of width.")
@click.option("--gamma", default=GAMMA, show_default=True, help="Growth of resolution.")
@click.option("--base-resolution", default=BASE_RESOLUTION, show_default=True, help="Pixels at phi = 0.")
@click.option(
    "--phi-range",
    type=(float, float),
    metavar="LEAST MOST",
    help="Searched for a budget.  [default: all; -8 8 for memory and latency]",
)
@click.option("--num-classes", default=1000, show_default=True, type=click.IntRange(1))
@click.option(
    "--batch-size", default=1, show_default=True, type=click.IntRange(1), help="For memory and latency."
)
@click.option(
    "--dtype", type=click.Choice(list(DTYPES)), help="[default: float16 on a GPU, float32 on a CPU]"
)
@click.option(
    "--device",
    type=_Device(),
    help="cpu, cuda, cuda:1...: for memory and latency.  [default: cuda where there is one]",
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def scale(
    phi: float | None,
    macs: float | None,
    params: float | None,
    memory_mb: float | None,
    latency_ms: float | None,
    show_deviations: bool,
    base: str,
    alpha: float,
    beta: float,
    gamma: float,
    base_resolution: int,
    phi_range: tuple[float, float] | None,
    num_classes: int,
    batch_size: int,
    dtype: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """A network by compound scaling: of a phi, or the largest within a budget. Choose one.

    depth = alpha^phi, width = beta^phi and resolution = gamma^phi times the base's. The published networks
    are not exactly those: --deviations shows where.
    """
    budgets = {"macs": macs, "params": params, "memory_mb": memory_mb, "latency_ms": latency_ms}
    chosen = [name for name, value in {"phi": phi, **budgets}.items() if value is not None]
    if len(chosen) + show_deviations != 1:
        raise _Refusal("choose one of --phi, --macs, --params, --memory-mb, --latency-ms and --deviations")
    if show_deviations:
        if as_json:
            click.echo(json.dumps([asdict(row) for row in deviations()], indent=1))
        else:
            _show(deviation_table())
        return
    scaling = {
        "base": base,
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "base_resolution": base_resolution,
        "num_classes": num_classes,
    }
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    storage = None if dtype is None else DTYPES[dtype]
    try:
        found = None
        if phi is None:
            found = phi_for_budget(
                **budgets,
                phi_range=phi_range,
                batch_size=batch_size,
                dtype=storage,
                device=device,
                progress=True,
                **scaling,
            )
        config = scaled_model_config(phi, **scaling) if found is None else found.config
    except _USER_ERRORS as error:
        raise _Refusal(" ".join(str(error).split())) from error
    phi = phi if found is None else found.phi
    counts = count(config, dtype=storage or (torch.float16 if device.startswith("cuda") else torch.float32))
    depth, width = alpha**phi, beta**phi
    if as_json:
        click.echo(json.dumps(_record(config, phi, depth, width, counts, found), indent=1))
        return
    console = _console()
    exact = base_resolution * gamma**phi
    console.print(
        f"{base} at phi {phi:g}: depth x {depth:.3f}, width x {width:.3f}, "
        f"{config.resolution} pixels ({exact:.1f} before rounding), dropout {config.drop_rate:.2f}"
    )
    _show(_stage_table(config))
    bytes_by_plan = ", ".join(
        f"{_HEADINGS[plan]} {counts.activation_bytes[plan] / 1e6:.1f} MB" for plan in PLANS
    )
    console.print(
        f"parameters {counts.parameters / 1e6:.3f} M, multiply-adds {counts.macs / 1e9:.4f} G an image"
    )
    console.print(f"activations an image in {str(counts.dtype).removeprefix('torch.')}: {bytes_by_plan}")
    if found is not None:
        counted = found.unit not in ("MB", "ms")
        achieved = f"{found.achieved:,.0f}" if counted else f"{found.achieved:,.3f}"
        console.print(f"{achieved} of {found.budget:,.10g} {found.unit}")
        if not counted:
            _show(_points_table(found))


def _console() -> Console:
    """As wide as the terminal; in a file or a pipe wide enough for every line."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def _show(table: Table) -> None:
    """Print `table` as wide as it is: a narrow terminal wraps its lines, where rich would cut the numbers."""
    console = _console()
    console.width = max(
        console.width, console.measure(table, options=console.options.update(width=1000)).maximum
    )
    console.print(table)


def _stage_table(config: EfficientNetConfig) -> Table:
    table = Table()
    for heading in ("stage", "kind", "kernel", "expand", "input", "channels", "layers"):
        table.add_column(heading, justify="left" if heading in ("stage", "kind") else "right")
    side = -(-config.resolution // 2)
    table.add_row("stem", "conv", "3", "", str(config.resolution), str(config.stem_channels), "1")
    for index, row in enumerate(config.stages):
        values = (row.kernel, row.expand, side, row.channels, row.layers)
        table.add_row(str(index), row.kind, *map(str, values))
        side = -(-side // row.stride)
    table.add_row("head", "conv", "1", "", str(side), str(config.head_channels), "1")
    return table


def _points_table(found: Budgeted) -> Table:
    table = Table()
    for heading in ("phi", "pixels", found.unit):
        table.add_column(heading, justify="right")
    for point in sorted(found.points, key=lambda point: point.phi):
        table.add_row(f"{point.phi:.3f}", str(point.config.resolution), f"{point.cost:,.3f}")
    return table


def _record(
    config: EfficientNetConfig,
    phi: float,
    depth: float,
    width: float,
    counts: Counts,
    found: Budgeted | None,
) -> dict[str, object]:
    record = {
        "name": config.name,
        "phi": phi,
        "depth": depth,
        "width": width,
        "dropout": config.drop_rate,
        "stem": config.stem_channels,
        "channels": [row.channels for row in config.stages],
        "layers": [row.layers for row in config.stages],
        "head": config.head_channels,
        **_counts_record(counts),
    }
    if found is not None:
        record["budget"] = {"unit": found.unit, "asked": found.budget, "achieved": found.achieved}
        record["points"] = _points_record(found)
    return record


def _points_record(found: Budgeted) -> Sequence[dict[str, float]]:
    return [{"phi": p.phi, "resolution": p.config.resolution, "cost": p.cost} for p in found.points]


def _counts_record(counts: Counts) -> dict[str, object]:
    return {
        "resolution": counts.resolution,
        "parameters": counts.parameters,
        "macs": counts.macs,
        "dtype": str(counts.dtype).removeprefix("torch."),
        "activation_bytes": counts.activation_bytes,
    }
