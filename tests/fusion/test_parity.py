"""A fused network is its original: the logits and every block's output, in float32 and bfloat16."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from timm.layers import SEModule
from timm.models._efficientnet_blocks import InvertedResidual, UniversalInvertedResidual
from torch import nn
from torchvision.ops import Conv2dNormActivation, FrozenBatchNorm2d, SqueezeExcitation

from effnet_fast.fusion.module import fuse_module
from tests.fusion.networks import MODELS, build, check_parity, close, counted_programs, randomise

DTYPES = (torch.float32, torch.bfloat16)
TIMM = [
    name
    for module in ("efficientnet", "mobilenetv3", "hardcorenas")
    for name in timm.list_models(module=module)
]
TORCHVISION = [
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if name.startswith(("efficientnet_", "mobilenet_v", "mnasnet"))
]


@pytest.mark.parametrize("name", MODELS)
def test_one_of_each_kind(name) -> None:
    make, (height, width) = MODELS[name]
    model = build(make)
    x = torch.randn(4, 3, height, width)
    for dtype in DTYPES:
        assert check_parity(model, x, dtype) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_every_timm_model(name) -> None:
    # At most two blocks of a stage: the others repeat them, and efficientnet_l2 has 480 million parameters.
    model = build(lambda: timm.create_model(name, num_classes=40))
    x = torch.randn(4, 3, 64, 64)
    for dtype in DTYPES:
        # Without batch norms there may be nothing that we know.
        assert check_parity(model, x, dtype) > 0 or name.endswith(("_gn", "_ln", "_evos"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_every_torchvision_model(name) -> None:
    model = build(lambda: torchvision.models.get_model(name, num_classes=40))
    x = torch.randn(4, 3, 64, 64)
    for dtype in DTYPES:
        assert check_parity(model, x, dtype) > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "build_part",
    [
        lambda: UniversalInvertedResidual(16, 16, dw_kernel_size_start=5, layer_scale_init_value=0.5),
        lambda: UniversalInvertedResidual(16, 24, dw_kernel_size_end=3, se_layer=SEModule),
        lambda: Conv2dNormActivation(16, 24, 5, bias=True, activation_layer=nn.Hardswish),
    ],
    ids=["layer_scale", "squeeze_excite_inside", "bias_and_norm"],
)
def test_parts_that_no_network_above_has(build_part, dtype) -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 16, 1), build_part()), size=16)
    assert check_parity(model, torch.randn(2, 3, 17, 16), dtype) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(model, fused, x, dtype) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype), counted_programs() as ran:
        expected, result = model(x), fused(x)
    assert len(ran) == 7  # stem, head and five blocks
    # Both programs of the same weights are kept, each for its dtype.
    with torch.no_grad(), counted_programs() as again:
        assert close(fused(x), model(x))
        with torch.autocast("cpu", dtype):
            assert torch.equal(fused(x), result)
    assert again[7:] == ran
    assert result.dtype == expected.dtype == dtype
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(x.double())
    assert (result - truth).abs().max() <= 2 * (expected - truth).abs().max() + torch.finfo(dtype).eps


@pytest.mark.parametrize(
    "build_part",
    [
        lambda: SqueezeExcitation(16, 4),
        lambda: Conv2dNormActivation(16, 16, norm_layer=FrozenBatchNorm2d),
        lambda: UniversalInvertedResidual(16, 24, layer_scale_init_value=0.5),
        lambda: InvertedResidual(16, 16),
        lambda: InvertedResidual(16, 24),
    ],
    ids=["squeeze_excite", "frozen_norm", "layer_scale", "residual", "no_residual"],
)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_autocast_gives_the_dtype_that_type_promotion_gives(build_part, given) -> None:
    model, x = build_part().eval(), torch.randn(2, 16, 8, 8).to(given)
    fused = copy.deepcopy(model)
    fuse_module(fused, "auto")  # fuse() itself leaves a lone squeeze-excite as it is
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, result = model(x), fused(x)
    assert result.dtype == expected.dtype
    assert (result - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (1, 3, 8, 8), (3, 3, 40, 24)])
def test_batches_and_sizes(model, fused, shape) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        expected, result = model(x), fused(x)
    assert result.shape == expected.shape
    assert not result.numel() or close(result, expected)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded"])
def test_layouts(model, fused, x, layout) -> None:
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "sliced":
        x = torch.randn(2, 5, 40, 70)[:, 1:4, 3:36, ::2]
    else:
        x = x[:1].expand(4, -1, -1, -1)
    before = x.clone()
    with torch.no_grad(), counted_programs() as ran:
        assert close(fused(x), model(x))
    assert ran
    assert torch.equal(x, before)
