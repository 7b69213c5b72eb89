"""``effnet-fast info --plan``: how a network would run on a GPU, which need not be there."""

from __future__ import annotations

import json

import click
import torch

from effnet_fast.inference.block_plan import block_plan
from effnet_fast.inference.block_plan_table import block_plan_table
from effnet_fast.inference.folding import fold
from effnet_fast.inference.tuned_plans import TunedPlanError, tuned_plan
from effnet_fast.measure.chips import CHIPS, find_chip
from effnet_fast.measure.gpu_rates import GpuRates, measured_rates, nominal_rates
from effnet_fast.models import create_model, list_models, model_config

__all__ = ["DEFAULT_CHIP", "show_plan"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

DEFAULT_CHIP = "h200"


class _Refusal(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


def show_plan(model: str, batch: int, dtype: str, chip: str | None, as_json: bool) -> None:
    """Print the plan of `model` for `batch` images of its own resolution, uint8 pixels.

    Args:
        model: a name of `list_models()`.
        batch: images at a time, at least 1.
        dtype: of `DTYPES`.
        chip: as `find_chip` takes it; None: the GPU at hand, measured, else `DEFAULT_CHIP`.
        as_json: one JSON object instead of a table.
    """
    if model not in list_models():
        raise _Refusal(f"no model is called {model!r}; see `effnet-fast models`")
    try:
        rates = _rates(chip, DTYPES[dtype])
        tuned = tuned_plan(rates.name)
    except (TunedPlanError, ValueError) as error:
        raise _Refusal(str(error)) from error
    with torch.device("meta"):
        network = fold(create_model(model).eval())
    side = model_config(model).resolution
    plan = block_plan(
        network,
        (side, side),
        images=batch,
        dtype=DTYPES[dtype],
        image_dtype=torch.uint8,
        rates=rates,
        tuned=tuned,
    )
    if as_json:
        click.echo(json.dumps({"model": model, "image_size": side, **plan.to_json()}, indent=1))
    else:
        click.echo(block_plan_table(plan, f"{model}, {side} x {side}"))


def _rates(chip: str | None, dtype: torch.dtype) -> GpuRates:
    if chip is not None:
        return nominal_rates(find_chip(chip))
    if torch.cuda.is_available():
        return measured_rates(torch.device("cuda", torch.cuda.current_device()), dtype)
    return nominal_rates(CHIPS[DEFAULT_CHIP])
