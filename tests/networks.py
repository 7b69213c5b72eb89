"""Networks that several folders of tests use: a tiny model as after training, and folded ones."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from effnet_fast.inference.folding import (
    FoldedBlock,
    FoldedConv,
    FoldedConvBlock,
    FoldedFusedBlock,
    FoldedLinear,
    FoldedNetwork,
    FoldedSqueezeExcite,
)
from effnet_fast.models.config import MBConvConfig
from effnet_fast.models.efficientnet import CONFIGS, EfficientNet


@torch.no_grad()
def randomise_batch_norms(model: nn.Module, size: int = 128, images: int = 8) -> nn.Module:
    """Random gamma and beta, and the statistics of random images, moved a little: folding matters everywhere.

    The last maps must have well over 32 values a channel in all, else the statistics are of these images
    alone, and other images make the network blow up, in any arithmetic.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.normal_(0, 0.2)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    model(torch.randn(images, model.stem.conv.in_channels, size, size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_mean += 0.05 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return model.eval()


TINY = dataclasses.replace(
    CONFIGS["tf_efficientnet_b0"],
    name="tiny",
    stem_channels=8,
    stages=(
        MBConvConfig(expand=1, kernel=3, stride=1, channels=8, layers=2),
        MBConvConfig(expand=6, kernel=5, stride=2, channels=16, layers=2),
        MBConvConfig(expand=4, kernel=3, stride=2, channels=24, layers=2),
    ),
    head_channels=64,
    num_classes=10,
)


def make_tiny(**changes) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return randomise_batch_norms(EfficientNet(dataclasses.replace(TINY, **changes)), size=48)


def folded_conv(name: str, o: int, c: int, k: int = 1, **changes) -> FoldedConv:
    values = {"stride": 1, "padding": "same", "activation": "silu", **changes}
    return FoldedConv(name, torch.randn(o, c, k, k), torch.randn(o), **values)


def every_kind_of_block() -> FoldedNetwork:
    """A folded network with every kind of block, with and without optional parts; random weights."""
    gate = FoldedSqueezeExcite(
        torch.randn(2, 8), torch.randn(2), torch.randn(8, 2), torch.randn(8), "silu", "sigmoid"
    )
    return FoldedNetwork(
        stem=folded_conv("stem", 4, 3, 3, stride=2, padding="symmetric"),
        blocks=(
            FoldedBlock(
                "a",
                folded_conv("a.expand", 8, 4),
                folded_conv("a.dw", 8, 1, 5),
                gate,
                folded_conv("a.p", 4, 8),
                True,
            ),
            FoldedBlock("b", None, folded_conv("b.dw", 4, 1, 3), None, folded_conv("b.p", 4, 4), False),
            FoldedFusedBlock("c", folded_conv("c.expand", 8, 4, 3), folded_conv("c.p", 4, 8), True),
            FoldedConvBlock("d", folded_conv("d.conv", 4, 4, 3), True),
        ),
        head=folded_conv("head", 6, 4),
        classifier=FoldedLinear("classifier", torch.randn(5, 6), torch.randn(5)),
    )


def assert_same_network(got: object, expected: object) -> None:
    """The same classes, fields and texts, and tensors of the same dtype, shape and bits."""
    assert type(got) is type(expected)
    if isinstance(expected, Tensor):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert torch.equal(got.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8))
    elif isinstance(expected, tuple):
        assert len(got) == len(expected)
        for pair in zip(got, expected, strict=True):
            assert_same_network(*pair)
    elif dataclasses.is_dataclass(expected):
        assert vars(got).keys() == vars(expected).keys()
        for name, value in vars(expected).items():
            assert_same_network(getattr(got, name), value)
    else:
        assert got == expected
