"""The subject of a measurement: a model with seeded weights, the images, and the logits that the gate
compares with.

Speed does not depend on the weights, accuracy does: fresh weights with batch-norm statistics of 0 and 1 make
activations vanish or explode over 80 layers. So the statistics are those of a batch of images, as after
training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

import effnet_fast
from benchmarks.cases import DTYPES, Case
from effnet_fast.models import Preprocessing

#: Images that differ; a larger batch repeats them, so that the gate sees every row of it at the cost of few
#: in float64.
DISTINCT_IMAGES = 4

#: Batch and image size that the batch-norm statistics come from; small, as the statistics hardly depend on
#: them.
CALIBRATION_SHAPE = (8, 3, 128, 128)


def calibrated(make: Callable[[], nn.Module], *, seed: int = 0) -> nn.Module:
    """What `make` makes, with seeded weights and calibrated statistics: float32, eval mode, no gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.6, 1.4)
            nn.init.normal_(norm.bias, std=0.2)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0  # the running statistics become those of the one batch below
        model.train()
        with torch.no_grad():
            model(torch.randn(CALIBRATION_SHAPE))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval().requires_grad_(False)


def seeded_model(name: str, *, seed: int = 0) -> nn.Module:
    """Variant `name`, `calibrated`."""
    make = partial(effnet_fast.create_model, name, drop_rate=0.0, drop_path_rate=0.0)
    return calibrated(make, seed=seed)


def distinct_images(size: int, *, seed: int = 1) -> torch.Tensor:
    """[DISTINCT_IMAGES, 3, size, size] noise in float32 that bfloat16 holds exactly: one for all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(DISTINCT_IMAGES, 3, size, size, generator=generator)
    return images.to(torch.bfloat16).float()


def distinct_pixels(size: int, *, seed: int = 2) -> torch.Tensor:
    """[DISTINCT_IMAGES, size, size, 3] uint8 noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (DISTINCT_IMAGES, size, size, 3), generator=generator, dtype=torch.uint8)


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """[N, 3, H, W] float64 of `pixels` [N, H, W, 3]: what stock PyTorch gets where an engine takes pixels."""
    mean, std = (
        torch.tensor(values, dtype=torch.float64) for values in (preprocessing.mean, preprocessing.std)
    )
    return ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def rows_of_batch(batch: int) -> torch.Tensor:
    """Index of the distinct image in each row of a batch."""
    return torch.arange(batch) % DISTINCT_IMAGES


@dataclass(frozen=True)
class Oracle:
    """Logits of the distinct images by stock PyTorch: `exact` in float64, `stock[dtype]` in each dtype.

    `terms` are summed for one logit.
    """

    exact: torch.Tensor
    terms: int
    stock: dict[torch.dtype, torch.Tensor]

    def rows(self, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
        """(float64 logits, stock logits in the case's dtype), each [case.batch, classes]."""
        rows = rows_of_batch(case.batch)
        return self.exact[rows], self.stock[case.torch_dtype][rows]


def make_oracle(model: nn.Module, images: torch.Tensor, dtypes: list[torch.dtype]) -> Oracle:
    """Run `model` in float64 and in each dtype, image by image: the largest variants need the memory."""

    def logits(dtype: torch.dtype) -> torch.Tensor:
        typed = copy.deepcopy(model).to(dtype)
        with torch.inference_mode():
            return torch.cat([typed(image[None].to(dtype)) for image in images]).clone()

    terms = model.classifier.in_features
    return Oracle(exact=logits(torch.float64), terms=terms, stock={dtype: logits(dtype) for dtype in dtypes})


class Subject:
    """Model, images and oracles of the variant being measured; rebuilt when it or its image size changes.

    `images` and `oracles` are by the kind of images that a peer takes: "float" or "uint8".
    """

    def __init__(self, folder: Path, seed: int):
        self._folder = folder
        self._seed = seed
        self._model_name = ""
        self._image_size = 0
        self._model: nn.Module | None = None
        self.weights = folder / "weights.pt"
        self.images = {kind: folder / f"images-{kind}.pt" for kind in ("float", "uint8")}
        self.oracles: dict[str, Oracle] = {}

    def load(self, case: Case, dtypes: Sequence[str], kinds: Collection[str]) -> None:
        """Prepare for `case`; `dtypes` are those that cases of this variant will ask for, `kinds` the images
        that its peers take.
        """
        if case.model != self._model_name:
            self._model = seeded_model(case.model, seed=self._seed)
            torch.save(self._model.state_dict(), self.weights)
            self._model_name = case.model
            self.oracles.clear()
        if case.image_size != self._image_size:
            self._image_size = case.image_size
            self.oracles.clear()
        for kind in kinds:
            if kind in self.oracles:
                continue
            if kind == "float":
                given = images = distinct_images(case.image_size)
            else:
                given = distinct_pixels(case.image_size)
                images = normalised(given, self._model.preprocessing)
            torch.save(given, self.images[kind])
            self.oracles[kind] = make_oracle(self._model, images, [DTYPES[name] for name in dtypes])
