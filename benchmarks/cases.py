"""What is timed: a variant of the family at its own resolution, a batch and a storage dtype."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch

from effnet_fast.models import count_macs, model_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: The published variants: phi is the index of the variant, B0 to B7 (facts of the paper's table, not of its
#: formula).
PHIS = range(0, 8)

#: 10^9 multiply-adds of one call above which the batch is halved. On a CPU: at B5 and beyond, 16 images are
#: 10 s and more of one eager call on two cores, which buys no accuracy: a call that long is its own average.
MAX_GMACS_PER_CALL = {"cpu": 200.0, "cuda": math.inf}


@dataclass(frozen=True)
class Case:
    """One line of the table. `note` says what was changed against what was asked for."""

    model: str
    image_size: int
    batch: int
    dtype: str
    gmacs: float
    note: str = ""

    @property
    def key(self) -> str:
        return f"{self.model}/{self.image_size}/{self.batch}/{self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def record(self) -> dict[str, object]:
        return asdict(self)


def parse_numbers(text: str, *, allowed: Iterable[int] | None = None, name: str) -> list[int]:
    """Numbers and ranges: "0-2,5" -> [0, 1, 2, 5].

    Raises:
        ValueError: `text`, called `name`, is something else, or a number is not `allowed` (None: 1 and more).
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{name}: {text!r} is not a list of numbers; allowed: e.g. 0-2 or 1,16")
        numbers += range(int(first), int(last if dash else first) + 1)
    if not numbers:
        raise ValueError(f"{name}: {text!r} is empty")
    permitted = None if allowed is None else list(allowed)
    for number in numbers:
        if permitted is not None and number not in permitted:
            raise ValueError(f"{name}: {number} is not allowed; allowed: {permitted[0]} to {permitted[-1]}")
        if permitted is None and number < 1:
            raise ValueError(f"{name}: {number} is not allowed; allowed: 1 and more")
    return list(dict.fromkeys(numbers))


def parse_dtypes(text: str) -> list[str]:
    """ "float32,bfloat16" -> names of `DTYPES`; ValueError for another."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in DTYPES:
            raise ValueError(f"dtype: {name!r} is not known; allowed: {', '.join(DTYPES)}")
    if not names:
        raise ValueError(f"dtype: {text!r} is empty; allowed: {', '.join(DTYPES)}")
    return list(dict.fromkeys(names))


#: Sides of images that a sweep takes: a network halves them five times.
IMAGE_SIDES = range(32, 2049)


def describe_model(name: str, side: int | None = None) -> tuple[int, float]:
    """Side of an image of the variant, the published one for None, and 1e9 multiply-adds of one such image
    (nothing is computed).
    """
    config = model_config(name)
    side = side or config.resolution
    return side, count_macs(config, side) / 1e9


def sweep(
    models: Sequence[str],
    batches: Sequence[int],
    dtypes: Sequence[str],
    device: str = "cpu",
    sides: Sequence[int] = (),
) -> list[Case]:
    """Every combination, variant by variant; batches are halved to keep the device's `MAX_GMACS_PER_CALL`.

    `sides` of the images; none: each variant at its published one.
    """
    cases: dict[str, Case] = {}
    for model, side in itertools.product(models, sides or (None,)):
        size, gmacs = describe_model(model, side)
        for batch in batches:
            fitting = batch
            while fitting > 1 and fitting * gmacs > MAX_GMACS_PER_CALL[device]:
                fitting //= 2
            note = "" if fitting == batch else f"batch {batch} limited to {fitting}"
            for dtype in dtypes:
                case = Case(model, size, fitting, dtype, round(gmacs, 4), note)
                cases.setdefault(case.key, case)
    return list(cases.values())


def networks_between(first: float, last: float) -> list[str]:
    """Networks of the formula's phi, every half from `first` to `last`: "efficientnet_phi0.5" and so on."""
    return [f"efficientnet_phi{half / 2:g}" for half in range(round(2 * first), round(2 * last) + 1)]


def phi_of(model: str) -> float | None:
    """Index of a compound-scaled variant (efficientnet_b3 -> 3), the formula's phi of others
    (efficientnet_phi2.5 -> 2.5), None for any other model.
    """
    for mark, number in (("_b", int), ("_phi", float)):
        stem, _, phi = model.rpartition(mark)
        if stem in ("efficientnet", "tf_efficientnet") and phi.replace(".", "", 1).isdecimal():
            return number(phi)
    return None
