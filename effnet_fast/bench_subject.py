"""The subject of ``effnet-fast bench``: a model by name, ours or a library's, and the truth of the gate."""

from __future__ import annotations

import copy
import difflib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effnet_fast.measure import Verdict, judge_logits
from effnet_fast.models import create_model, list_models, model_config

__all__ = ["OURS", "Gate", "Subject", "find_subject"]

OURS = "effnet_fast"
LIBRARIES = ("timm", "torchvision")

# Images that differ; a larger batch repeats them. Two tell rows that are exchanged, and in float64 one
# image of a large network takes a CPU seconds.
_DISTINCT_IMAGES = 2
# Smaller images would leave a few values of each channel for its statistics, and a network in float32
# that is wrong by 1 in 1000.
_CALIBRATION_BATCH, _CALIBRATION_SIDE = 8, 128


@dataclass(frozen=True)
class Subject:
    """A model with seeded weights: float32, in eval mode, on the CPU, for square images of `image_size`."""

    name: str
    library: str
    model: nn.Module
    image_size: int


def find_subject(name: str, image_size: int | None = None) -> Subject:
    """The model called `name`: of `list_models()`, else of timm, else of torchvision.

    "timm:NAME" and "torchvision:NAME" ask that library alone. Weights are random and seeded, as speed does
    not depend on them; batch-norm statistics are those of a batch of noise, so that activations keep a
    realistic size.

    Args:
        name: of the model.
        image_size: side in pixels; None for the published one.

    Raises: ValueError where none has such a model.
    """
    library, colon, short = name.partition(":")
    if not colon:
        library, short = "", name
    elif library not in LIBRARIES:
        raise ValueError(f"{library}: is no library that is known here; allowed: {', '.join(LIBRARIES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not library and short in list_models():
            side = image_size or model_config(short).resolution
            found = Subject(short, OURS, create_model(short, drop_rate=0.0, drop_path_rate=0.0), side)
        else:
            found = _of_a_library(short, (library,) if library else LIBRARIES, image_size)
        _calibrate(found)
    found.model.eval().requires_grad_(False)
    return found


def _of_a_library(name: str, libraries: tuple[str, ...], image_size: int | None) -> Subject:
    known: list[str] = list_models() if libraries == LIBRARIES else []
    missing = []
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            missing.append(library)
            continue
        if library == "timm":
            import timm

            if timm.is_model(name):
                model = timm.create_model(name, pretrained=False)
                return Subject(name, library, model, image_size or model.pretrained_cfg["input_size"][-1])
            known += timm.list_models()
        else:
            import torchvision

            names = torchvision.models.list_models(module=torchvision.models)
            if name in names:
                weights = torchvision.models.get_model_weights(name)
                side = image_size or weights.DEFAULT.transforms().crop_size[0]
                return Subject(name, library, torchvision.models.get_model(name), side)
            known += names
    near = difflib.get_close_matches(name, known, n=3)
    absent = f" ({' and '.join(missing)} not installed)" if missing else ""
    hint = f"did you mean {', '.join(near)}?" if near else "see `effnet-fast models`"
    places = ("effnet_fast", *libraries) if libraries == LIBRARIES else libraries
    raise ValueError(f"no model of {', '.join(places)}{absent} is called {name!r}; {hint}")


def _calibrate(subject: Subject) -> None:
    """Make the running statistics of every batch norm those of a batch of noise, as after training."""
    norms = [module for module in subject.model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.6, 1.4)
            nn.init.normal_(norm.bias, std=0.2)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become those of the one batch below
    if norms:
        try:
            _train_on_noise(subject, _CALIBRATION_SIDE)
        except (RuntimeError, ValueError, AssertionError):  # it takes images of one size alone
            _train_on_noise(subject, subject.image_size)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _train_on_noise(subject: Subject, side: int) -> None:
    with torch.no_grad(), _explained(subject, side):
        subject.model.train()(torch.randn(_CALIBRATION_BATCH, 3, side, side))


@contextmanager
def _explained(subject: Subject, side: int) -> Iterator[None]:
    """What the model says of images that it does not take, as a ValueError that names both."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{subject.name} takes no images of {side} x {side}: {said}") from error


class Gate:
    """Images [batch, 3, side, side] float32, and what the error budget of docs/numerics.md allows for them.

    Args:
        subject: the model.
        batch: images at a time.
        dtype: of weights and activations.

    Raises: ValueError where the model does not take such images, gives no logits [images, classes], or none
        that are finite.
    """

    def __init__(self, subject: Subject, batch: int, dtype: torch.dtype) -> None:
        side, count = subject.image_size, min(batch, _DISTINCT_IMAGES)
        generator = torch.Generator().manual_seed(1)
        distinct = torch.randn(count, 3, side, side, generator=generator)
        distinct = distinct.to(
            torch.bfloat16
        ).float()  # which every dtype but float16's tiny end holds exactly
        self._rows = torch.arange(batch) % count
        self.images = distinct[self._rows]
        self._dtype = dtype
        linear = [module for module in subject.model.modules() if isinstance(module, nn.Linear)]
        self._terms = linear[-1].in_features if linear else 1
        self._exact, self._stock = (_logits(subject, distinct, of) for of in (torch.float64, dtype))

    def judge(self, logits: Tensor) -> Verdict:
        """Whether `logits` [batch, classes] are at most twice as wrong as stock PyTorch's in this dtype."""
        exact, stock = self._exact[self._rows], self._stock[self._rows]
        return judge_logits(logits, oracle=exact, stock=stock, dtype=self._dtype, terms=self._terms)


def _logits(subject: Subject, images: Tensor, dtype: torch.dtype) -> Tensor:
    model = copy.deepcopy(subject.model).to(dtype)
    with torch.inference_mode(), _explained(subject, subject.image_size):
        found = [model(image[None].to(dtype)) for image in images]
    if not all(isinstance(logits, Tensor) and logits.dim() == 2 for logits in found):
        raise ValueError(f"{subject.name} gives no logits [images, classes], which is what is compared here")
    logits = torch.cat(found).clone()
    if not logits.isfinite().all():
        raise ValueError(f"stock PyTorch's logits of {subject.name} in {dtype} are not finite: no comparison")
    return logits
