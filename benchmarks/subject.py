"""The subject of a measurement: a model with seeded weights, the images, and the logits that the gate
compares with.

Speed does not depend on the weights, accuracy does: fresh weights with batch-norm statistics of 0 and 1 make
activations vanish or explode over 80 layers. So the statistics are those of a batch of images, as after
training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

import effnet_fast
from benchmarks.cases import Case

#: Images that differ; a larger batch repeats them, so that the gate sees every row of it at the cost of few
#: in float64.
DISTINCT_IMAGES = 4

#: Batch and image size that the batch-norm statistics come from; small, as the statistics hardly depend on
#: them.
CALIBRATION_SHAPE = (8, 3, 128, 128)


def seeded_model(name: str, *, seed: int = 0) -> nn.Module:
    """Variant `name` with seeded weights and calibrated statistics: float32, eval mode, no gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = effnet_fast.create_model(name, drop_rate=0.0, drop_path_rate=0.0)
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


def distinct_images(size: int, *, seed: int = 1) -> torch.Tensor:
    """[DISTINCT_IMAGES, 3, size, size] noise in float32 that bfloat16 holds exactly: one for all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(DISTINCT_IMAGES, 3, size, size, generator=generator)
    return images.to(torch.bfloat16).float()


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
