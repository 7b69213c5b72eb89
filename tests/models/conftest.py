"""Models with every weight and batch norm statistic random, and the libraries that they are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision
from torch import nn

from effnet_fast.models import EfficientNet, create_model


def _randomise(model: nn.Module) -> nn.Module:
    """Random weights everywhere, and batch norms that no default (0, 1) could stand in for.

    The running statistics are those of a random batch, then disturbed: without them the signal of a network
    that was never trained dies out, and the logits would not depend on the image.
    """
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = math.prod(module.weight.shape[1:])
                module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.5, generator=generator)
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.5, generator=generator)
            norm.reset_running_stats()
            norm.train()
            norm.momentum = 1.0
        model(torch.randn(4, model.config.in_chans, 64, 64, generator=generator))
        for norm in norms:
            norm.momentum = model.config.norm_momentum
            norm.running_mean.mul_(
                torch.empty_like(norm.running_mean).uniform_(0.8, 1.2, generator=generator)
            )
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.5, generator=generator))
            norm.num_batches_tracked.fill_(7)
    return model


@pytest.fixture(autouse=True)
def one_thread(threads) -> None:
    """Images of 64 pixels are too small to share out, and waiting for a busy core takes far longer."""
    threads(1)


@pytest.fixture(scope="session")
def random_model() -> Callable[..., EfficientNet]:
    """make(name, **arguments) -> a randomised model in evaluation mode."""

    def make(name: str, **arguments) -> EfficientNet:
        with torch.device("meta"):
            model = create_model(name, **arguments)
        return _randomise(model.to_empty(device="cpu").eval()).eval()

    return make


@pytest.fixture(scope="session")
def peer_model() -> Callable[..., nn.Module]:
    """make(library, name) -> the library's model that is ours called `name`, on the meta device.

    torchvision and efficientnet_pytorch have one form of each, whether or not `name` begins with "tf_"; timm
    has EfficientNetV2-B0..B3 with "tf_" alone, and builds the other form when it is told to.
    """

    def make(library: str, name: str, **arguments) -> nn.Module:
        base = name.removeprefix("tf_")
        with torch.device("meta"):
            if library == "timm":
                if name.startswith("efficientnetv2_b"):
                    name, arguments = f"tf_{name}", {"pad_type": "", "bn_eps": 1e-5, **arguments}
                return timm.create_model(name, **arguments)
            if library == "torchvision":
                if base.startswith("mobilenetv2_"):
                    width = int(base.removeprefix("mobilenetv2_")) / 100
                    return torchvision.models.mobilenet_v2(width_mult=width, **arguments)
                return getattr(torchvision.models, base.replace("netv2", "net_v2"))(**arguments)
            # image_size=None: padding from each input's size, not from the nominal one.
            return efficientnet_pytorch.EfficientNet.from_name(
                base.replace("_", "-"), image_size=None, **arguments
            )

    return make
