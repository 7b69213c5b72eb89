"""Widths, depths, strides, feature sizes and rates of every variant."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn

from effnet_fast.models import create_model, layers, list_models, model_config
from effnet_fast.models.coefficients import round_channels, round_layers
from effnet_fast.nn import ConvBlock, ConvNormAct, DepthwiseSeparable, FusedMBConv, MBConv

# stem | (repeats, channels) of stages 0..6 | head | blocks | height after stem and every strided stage
TABLE = {
    "b0": (32, "1x16 2x24 2x40 3x80 3x112 4x192 1x320", 1280, 16, (112, 56, 28, 14, 7)),
    "b1": (32, "2x16 3x24 3x40 4x80 4x112 5x192 2x320", 1280, 23, (120, 60, 30, 15, 8)),
    "b2": (32, "2x16 3x24 3x48 4x88 4x120 5x208 2x352", 1408, 23, (130, 65, 33, 17, 9)),
    "b3": (40, "2x24 3x32 3x48 5x96 5x136 6x232 2x384", 1536, 26, (150, 75, 38, 19, 10)),
    "b4": (48, "2x24 4x32 4x56 6x112 6x160 8x272 2x448", 1792, 32, (190, 95, 48, 24, 12)),
    "b5": (48, "3x24 5x40 5x64 7x128 7x176 9x304 3x512", 2048, 39, (228, 114, 57, 29, 15)),
    "b6": (56, "3x32 6x40 6x72 8x144 8x200 11x344 3x576", 2304, 45, (264, 132, 66, 33, 17)),
    "b7": (64, "4x32 7x48 7x80 10x160 10x224 13x384 4x640", 2560, 55, (300, 150, 75, 38, 19)),
    "b8": (72, "4x32 8x56 8x88 11x176 11x248 15x424 4x704", 2816, 61, (336, 168, 84, 42, 21)),
    "l2": (136, "6x72 11x104 11x176 16x344 16x480 22x824 6x1376", 5504, 88, (400, 200, 100, 50, 25)),
}
# stem | kind of the blocks (conv: cn, fused: er, MBConv: ir), expansion, repeats and channels, as timm writes
TABLE_V2 = {
    "s": (24, "cn1-2x24 er4-4x48 er4-4x64 ir4-6x128 ir6-9x160 ir6-15x256"),
    "m": (24, "cn1-3x24 er4-5x48 er4-5x80 ir4-7x160 ir6-14x176 ir6-18x304 ir6-5x512"),
    "l": (32, "cn1-4x32 er4-7x64 er4-7x96 ir4-10x192 ir6-19x224 ir6-25x384 ir6-7x640"),
    "xl": (32, "cn1-4x32 er4-8x64 er4-8x96 ir4-16x192 ir6-24x256 ir6-32x512 ir6-8x640"),
    "b0": (32, "cn1-1x16 er4-2x32 er4-2x48 ir4-3x96 ir6-5x112 ir6-8x192"),
    "b3": (40, "cn1-2x16 er4-3x40 er4-3x56 ir4-5x112 ir6-7x136 ir6-12x232"),
}
DROPOUT = {
    **{"b0": 0.2, "b1": 0.2, "b2": 0.3, "b3": 0.3, "b4": 0.4, "b5": 0.4, "b6": 0.5, "b7": 0.5, "b8": 0.5},
    **{"l2": 0.5, "s": 0.2, "m": 0.3, "l": 0.4, "xl": 0.4},
    **{"lite0": 0.2, "lite1": 0.2, "lite2": 0.3, "lite3": 0.3, "lite4": 0.3},
}


@pytest.mark.parametrize("variant", TABLE)
@pytest.mark.parametrize("prefix", ["", "tf_"])
def test_widths_depths_and_feature_sizes(prefix, variant):
    stem, stages, head, blocks, heights = TABLE[variant]
    config = model_config(f"{prefix}efficientnet_{variant}")
    assert config.stem_channels == stem
    assert " ".join(f"{row.layers}x{row.channels}" for row in config.stages) == stages
    assert config.head_channels == head
    assert len(list(config.blocks())) == blocks
    strided = [layer.out_size[0] for layer in layers(config) if layer.stride == 2]
    assert tuple(strided) == heights


@pytest.mark.parametrize("variant", TABLE_V2)
@pytest.mark.parametrize("prefix", ["", "tf_"])
def test_rows_of_v2(prefix, variant):
    stem, stages = TABLE_V2[variant]
    config = model_config(f"{prefix}efficientnetv2_{variant}")
    kinds = {"conv": "cn", "fused": "er", "mbconv": "ir"}
    rows = config.stages
    assert config.stem_channels == stem
    assert " ".join(f"{kinds[row.kind]}{row.expand}-{row.layers}x{row.channels}" for row in rows) == stages
    assert [row.stride for row in rows] == [1, 2, 2, 2, 1, 2, 1][: len(rows)]
    assert {row.kernel for row in rows} == {3}
    for block in config.blocks():
        squeeze = block.in_channels // 4 if block.kind == "mbconv" else None
        assert block.squeeze_channels == squeeze


def test_mobilenetv2_d_keeps_stem_head_and_outer_depths():
    """timm's deeper MobileNetV2; the narrow ones keep the head alone."""
    for name in ("mobilenetv2_110d", "mobilenetv2_120d"):
        config = model_config(name)
        assert (config.stem_channels, config.head_channels) == (32, 1280)
        assert config.stages[0].layers == config.stages[-1].layers == 1
    assert [row.layers for row in model_config("mobilenetv2_120d").stages] == [1, 3, 5, 6, 5, 5, 1]
    narrow = model_config("mobilenetv2_035")
    assert (narrow.stem_channels, narrow.head_channels) == (16, 1280)
    assert model_config("mobilenetv2_140").head_channels == 1792


@pytest.mark.parametrize("prefix", ["", "tf_"])
@pytest.mark.parametrize("index", range(5))
def test_lite_keeps_stem_head_and_outer_depths(prefix, index):
    lite = model_config(f"{prefix}efficientnet_lite{index}")
    full = model_config(f"efficientnet_b{index}")
    assert (lite.stem_channels, lite.head_channels) == (32, 1280)
    assert [row.channels for row in lite.stages] == [row.channels for row in full.stages]
    assert [row.layers for row in lite.stages] == [1, *(row.layers for row in full.stages[1:-1]), 1]
    assert lite.activation == "relu6"
    assert all(block.squeeze_channels is None for block in lite.blocks())


def test_b3_stage_0_is_rounded_up():
    """16 * 1.2 = 19.2 would round to 16, which is more than a tenth too few."""
    assert round_channels(16, 1.2) == 24
    assert model_config("efficientnet_b3").stages[0].channels == 24
    assert model_config("efficientnet_lite3").stages[0].channels == 24
    assert round_channels(16, 1.2, limit=0.0) == model_config("efficientnetv2_b3").stages[0].channels == 16


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        (32, 1.0, 32),
        (1, 1.0, 8),
        (32, 1.1, 32),
        (1280, 1.1, 1408),
        (20, 1.0, 24),
        (16, 1.4, 24),
        (320, 2.2, 704),
    ],
)
def test_round_channels(channels, width, expected):
    assert round_channels(channels, width) == expected
    assert expected % 8 == 0


@pytest.mark.parametrize(
    ("count", "depth", "expected"), [(1, 1.0, 1), (1, 1.1, 2), (4, 1.8, 8), (3, 3.1, 10)]
)
def test_round_layers(count, depth, expected):
    assert round_layers(count, depth) == expected


def test_b0_squeeze_widths_and_depthwise_census():
    blocks = list(model_config("efficientnet_b0").blocks())
    assert [block.squeeze_channels for block in blocks] == [
        8,
        4,
        6,
        6,
        10,
        10,
        *[20] * 3,
        *[28] * 3,
        *[48] * 4,
    ]
    census = [(block.kernel_size, block.stride) for block in blocks]
    counts = {kind: census.count(kind) for kind in sorted(set(census))}
    assert counts == {(3, 1): 5, (3, 2): 2, (5, 1): 7, (5, 2): 2}


@pytest.mark.parametrize("name", list_models())
def test_modules_have_the_configured_norm_padding_and_activation(name):
    with torch.device("meta"):
        model = create_model(name)
    tensorflow = name.startswith("tf_")
    for module_name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == (1e-3 if tensorflow else 1e-5), module_name
            momentum = 0.01 if tensorflow and "v2" not in name else 0.1
            assert module.momentum == momentum, module_name
    activation = "relu6" if "lite" in name or "mobilenet" in name else "silu"
    assert model.stem.activation_name == model.head.activation_name == activation
    assert model.stem.padding_for(224, 225) == ((0, 1, 1, 1) if tensorflow else (1, 1, 1, 1))
    blocks = [block for stage in model.stages for block in stage]
    if "efficientnetv2" in name:
        classes = [ConvBlock, FusedMBConv, FusedMBConv, *[MBConv] * (len(model.stages) - 3)]
    else:
        classes = [DepthwiseSeparable, *[MBConv] * 6]
    assert [{type(block) for block in stage} for stage in model.stages] == [{each} for each in classes]
    assert {
        module.activation_name
        for block in blocks
        for part, module in block.named_children()
        if isinstance(module, ConvNormAct) and part != "project"
    } == {activation}
    assert [block.has_skip for block in blocks] == [
        block.stride == 1 and block.in_channels == block.out_channels for block in model.config.blocks()
    ]


@pytest.mark.parametrize("name", list_models())
def test_dropout_and_drop_path_are_as_published_unless_given(name):
    variant = name.rpartition("_")[2]
    dropout = 0.2 if name.startswith("mobilenetv2_") else DROPOUT[variant]
    drop_path = 0.0 if name.startswith("mobilenetv2_") else 0.2
    with torch.device("meta"):
        published = create_model(name)
        given = create_model(name, drop_rate=0.0, drop_path_rate=0.1)
    assert published.dropout.p == dropout
    assert given.dropout.p == 0.0
    for model, rate in ((published, drop_path), (given, 0.1)):
        blocks = [block for stage in model.stages for block in stage]
        for index, block in enumerate(blocks):
            assert block.drop_path.rate == pytest.approx(rate * index / len(blocks))


@pytest.mark.parametrize(
    ("name", "theirs"), [("efficientnet_b1", "efficientnet_b1"), ("efficientnetv2_m", "efficientnet_v2_m")]
)
def test_drop_path_rates_are_torchvisions(name, theirs):
    with torch.device("meta"):
        ours = create_model(name)
        theirs = torchvision.models.get_model(theirs)
    rates = [m.p for m in theirs.modules() if isinstance(m, torchvision.ops.StochasticDepth)]
    assert [block.drop_path.rate for stage in ours.stages for block in stage] == pytest.approx(rates)
    (dropout,) = [module.p for module in theirs.classifier if isinstance(module, nn.Dropout)]
    assert ours.dropout.p == dropout


def test_new_weights_are_drawn_as_published():
    model = create_model("efficientnet_b0")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
            ratio = module.weight.std().item() / math.sqrt(2 / fan_out)
            # Relative standard deviation of a sample deviation: 1 / sqrt(2n); five of them.
            assert abs(ratio - 1) < 5 / math.sqrt(2 * module.weight.numel()), name
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    limit = 1 / math.sqrt(1000)
    assert model.classifier.weight.abs().max() <= limit
    assert model.classifier.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert not model.classifier.bias.any()
