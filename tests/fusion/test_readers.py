"""What a reader says a block computes is what the block computes."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
import torchvision
from efficientnet_pytorch.utils import Conv2dDynamicSamePadding
from timm.layers import SEModule
from timm.models._efficientnet_blocks import CondConvResidual, InvertedResidual, MobileAttention
from torch import nn

from effnet_fast.fusion import parts
from effnet_fast.fusion.readers import CHAINS, DECLINED, READERS
from tests.fusion.blocks import KINDS, SE, exchange, interpret, inverted_residual, randomise, read


def test_every_reader_is_tested() -> None:
    built = {parts.class_name(make()) for make in KINDS.values()}
    # A base class that torchvision warns against, made of the same children.
    assert set(READERS) - built == {"torchvision.ops.misc.ConvNormActivation"}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_block_computes_what_its_reader_says(kind) -> None:
    torch.manual_seed(sum(map(ord, kind)))
    module = randomise(KINDS[kind]())
    block = read(module)
    for height, width in ((13, 11), (12, 10)):
        x = torch.randn(2, block.parts[0].in_channels, height, width, dtype=torch.float64)
        expected = module(x.clone())
        torch.testing.assert_close(interpret(block, x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_read_again_when_it_is_of_a_subclass(kind) -> None:
    """Fused objects are: whoever asks has looked at the class."""
    module = KINDS[kind]()
    reader, first = READERS[parts.class_name(module)], read(module)
    module.__class__ = type("Fused", (type(module),), {})
    assert parts.class_name(module) not in READERS
    again = reader(module)
    assert [type(part) for part in again.parts] == [type(part) for part in first.parts]
    assert [*map(id, again.tensors())] == [*map(id, first.tensors())]


@pytest.mark.parametrize(
    "name", [*READERS, *DECLINED, *CHAINS, *parts.ACTIVATIONS, *parts.GATES, *parts.NORMS]
)
def test_names_are_of_classes_that_exist(name) -> None:
    module, _, cls = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), cls), nn.Module)


ACCEPTED: dict[str, Callable[[nn.Module], object]] = {
    "another convolution": exchange("conv_dw", Conv2dDynamicSamePadding(32, 32, 5, groups=32)),
    "padding by name": exchange("conv_dw", nn.Conv2d(32, 32, 5, padding="same", groups=32)),
    "no padding": exchange("conv_dw", nn.Conv2d(32, 32, 3, padding="valid", groups=32)),
    "uneven padding": exchange("conv_dw", nn.Conv2d(32, 32, 3, padding=(0, 2), groups=32)),
    "norm taken away": exchange("bn3", nn.Identity()),
    "norm without weights": exchange("bn3", nn.BatchNorm2d(16, affine=False)),
    "no squeeze-excite": exchange("se", nn.Identity()),
    "another squeeze-excite": exchange("se", SEModule(32, act_layer=nn.SiLU)),
    "an idle filter": exchange("aa", nn.Dropout()),
    "unused drop path": exchange("drop_path", nn.Linear(1, 1)),
}


@pytest.mark.parametrize("case", ACCEPTED)
@torch.no_grad()
def test_exchanged_children_are_read_as_they_are_now(case) -> None:
    module = inverted_residual(se_layer=SE, noskip=True)
    ACCEPTED[case](module)
    randomise(module)
    x = torch.randn(2, 16, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(interpret(read(module), x), module(x), rtol=1e-10, atol=1e-10)


def test_a_skip_may_be_switched() -> None:
    module = inverted_residual()
    assert read(module).residual
    module.has_skip = False
    assert not read(module).residual


@pytest.mark.parametrize(
    "module",
    [
        CondConvResidual(16, 16, exp_ratio=2, num_experts=2),
        MobileAttention(16, 16, num_heads=2),
        torchvision.models.quantization.mobilenet_v2(quantize=False).features[1],
        type("Mine", (InvertedResidual,), {})(16, 16),
    ],
    ids=lambda module: type(module).__name__,
)
def test_other_classes_have_no_reader(module) -> None:
    name = parts.class_name(module)
    assert name not in READERS
    assert (name in DECLINED) == (type(module).__name__ != "Mine")
