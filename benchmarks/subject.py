"""The subject of a measurement: a model with seeded weights, the images, and the logits that the gate
compares with.

Speed does not depend on the weights, accuracy does: fresh weights with batch-norm statistics of 0 and 1 make
activations vanish or explode over 80 layers. So the statistics are those of a batch of images, as after
training, and of images as large as the measured ones: how much of a map borders on padding depends on its
size, and a small error of every statistic grows with depth. With statistics of 128 pixels B4's logits are of
order 1000 at its 380, and PyTorch's in bfloat16 are wrong by 0.4 of their norm; with its own they are of
order 1, and wrong by 0.1.
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
from effnet_fast.models import Preprocessing, model_config

#: Images that differ; a larger batch repeats them, so that the gate sees every row of it at the cost of few
#: in float64.
DISTINCT_IMAGES = 4

#: Values that each batch-norm statistic is at least taken over.
STATISTIC_VALUES = 128


def calibration_shape(image_size: int) -> tuple[int, int, int, int]:
    """[N, 3, H, W] of the batch whose statistics a network gets; its last map is a 32nd as large."""
    last = -(-image_size // 32)
    return max(DISTINCT_IMAGES, -(-STATISTIC_VALUES // last**2)), 3, image_size, image_size


def calibrated(make: Callable[[], nn.Module], image_size: int, *, seed: int = 0) -> nn.Module:
    """What `make` makes, with seeded weights and the statistics of images of `image_size`.

    It is float32, in evaluation mode, without gradients.
    """
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
            model(torch.randn(calibration_shape(image_size)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval().requires_grad_(False)


def seeded_model(name: str, image_size: int | None = None, *, seed: int = 0) -> nn.Module:
    """Variant `name`, `calibrated` for `image_size`; None: its own."""
    make = partial(effnet_fast.create_model, name, drop_rate=0.0, drop_path_rate=0.0)
    return calibrated(make, image_size or model_config(name).resolution, seed=seed)


def distinct_images(size: int, *, seed: int = 1) -> torch.Tensor:
    """[DISTINCT_IMAGES, 3, size, size] noise in float32 that bfloat16 holds exactly: one for all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(DISTINCT_IMAGES, 3, size, size, generator=generator)
    return images.to(torch.bfloat16).float()


def distinct_pixels(size: int, preprocessing: Preprocessing, *, seed: int = 2) -> torch.Tensor:
    """[DISTINCT_IMAGES, size, size, 3] uint8 noise.

    Normalised, it has mean 0 and variance 1 as `distinct_images` have, or what 0..255 allows of that:
    squeeze-excites multiply what is larger than the statistics were taken of, block by block.
    """
    mean, std = (
        torch.tensor(values, dtype=torch.float64) for values in (preprocessing.mean, preprocessing.std)
    )
    low, high = (255 * (mean + sign * 3**0.5 * std).clamp(0, 1) for sign in (-1, 1))
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(DISTINCT_IMAGES, size, size, 3, generator=generator, dtype=torch.float64)
    return (low + uniform * (high - low)).round().to(torch.uint8)


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
        self._made_for = ("", 0)
        self._model: nn.Module | None = None
        self.weights = folder / "weights.pt"
        self.images = {kind: folder / f"images-{kind}.pt" for kind in ("float", "uint8")}
        self.oracles: dict[str, Oracle] = {}

    def load(self, case: Case, dtypes: Sequence[str], kinds: Collection[str]) -> None:
        """Prepare for `case`; `dtypes` are those that cases of this variant will ask for, `kinds` the images
        that its peers take.
        """
        if (case.model, case.image_size) != self._made_for:
            self._model = seeded_model(case.model, case.image_size, seed=self._seed)
            torch.save(self._model.state_dict(), self.weights)
            self._made_for = (case.model, case.image_size)
            self.oracles.clear()
        for kind in kinds:
            if kind in self.oracles:
                continue
            if kind == "float":
                given = images = distinct_images(case.image_size)
            else:
                given = distinct_pixels(case.image_size, self._model.preprocessing)
                images = normalised(given, self._model.preprocessing)
            torch.save(given, self.images[kind])
            self.oracles[kind] = make_oracle(self._model, images, [DTYPES[name] for name in dtypes])
