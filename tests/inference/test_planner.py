"""The planner as a pure function: segments, passes, lifetimes, a symbolic run that notices a lost value."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.inference.layers import IMAGE, Layer, Value
from effnet_fast.inference.planner import Plan, images_per_pass, passes
from effnet_fast.models import create_model
from effnet_fast.models.efficientnet import CONFIGS, EfficientNet

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def b0_layers():
    with torch.device("cpu"):
        return network_layers(fold(create_model("efficientnet_b0").eval()), (224, 224))


@pytest.fixture(scope="module")
def small_layers():
    config = dataclasses.replace(CONFIGS["efficientnet_b0"], num_classes=7)
    return network_layers(fold(EfficientNet(config).eval()), (33, 32))


def test_layers_of_b0(b0_layers):
    assert len(b0_layers) == 1 + 2 + 15 * 3 + 2
    assert len({layer.name for layer in b0_layers}) == len(b0_layers)
    operators = [layer.operator for layer in b0_layers]
    assert operators[:4] == ["stem_conv", "depthwise_conv_gate", "pointwise_conv", "pointwise_conv"]
    assert operators[-2:] == ["head_pool", "pointwise_conv"]
    assert operators.count("depthwise_conv_gate") == 16
    assert b0_layers[0].y.shape == (32, 112, 112)
    assert b0_layers[-3].y.shape == (320, 7, 7)
    assert (b0_layers[-1].y.shape, b0_layers[-1].y.single) == ((1000, 1, 1), True)
    assert sum(layer.residual is not None for layer in b0_layers) == 9


def test_fused_layers_of_b0_never_hold_the_expanded_map():
    network = fold(create_model("efficientnet_b0").eval())
    layers = network_layers(network, (224, 224), forms=BlockForm.EXPANSION_FUSED)
    operators = [layer.operator for layer in layers]
    assert operators[:5] == [
        "stem_conv", "depthwise_conv_gate", "pointwise_conv", "expand_depthwise_pool", "squeeze_excite_gate",
    ]  # fmt: skip
    assert operators.count("expand_depthwise_pool") == operators.count("squeeze_excite_gate") == 15
    assert len({layer.name for layer in layers}) == len(layers)
    first = layers[3]
    assert (first.x.shape, first.y.shape, first.sums.shape) == ((16, 112, 112), (96, 56, 56), (96, 16, 1))
    assert (96, 112, 112) not in {layer.y.shape for layer in layers}
    assert layers[4].count == 56 * 56
    plans = [
        plan_network(network_layers(network, (224, 224), forms=form), batch=1, dtype=torch.float32)
        for form in BlockForm
    ]
    assert plans[1].peak_bytes < 0.6 * plans[0].peak_bytes
    assert plans[2].peak_bytes < 0.8 * plans[1].peak_bytes


@pytest.mark.parametrize("name", ["efficientnet_lite0", "tf_efficientnet_b0"])
@pytest.mark.parametrize("size", [(64, 64), (63, 65), (37, 96)])
def test_layers_have_the_models_own_shapes(name, size):
    model = create_model(name).eval()
    seen = {}
    for path, module in model.named_modules():
        module.register_forward_hook(
            lambda module, args, out, path=path: seen.update({path: tuple(out.shape[1:])})
        )
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))
    for layer in network_layers(fold(model), size):
        if layer.operator not in ("head_pool",):
            expected = seen[layer.name]
            assert layer.y.shape[: len(expected)] == expected, layer.name


def test_layers_resolve_same_padding_from_each_layers_size():
    layers = network_layers(fold(create_model("tf_efficientnet_b0").eval()), (65, 64))
    by_name = {layer.name: layer for layer in layers}
    assert by_name["stem"].padding == (1, 0, 1, 1)
    assert by_name["stages.1.0.depthwise"].x.shape[1:] == (33, 32)
    assert by_name["stages.1.0.depthwise"].padding == (1, 0, 1, 1)
    assert by_name["stages.2.0.depthwise"].padding == (2, 1, 2, 2)


@pytest.mark.parametrize(
    ("working_set", "batch", "threads", "budget", "expected"),
    [
        (6 * MIB, 16, 2, 16 * MIB, 2),
        (6 * MIB, 16, 2, 4 * MIB, 2),  # at least one image a thread
        (6 * MIB, 1, 2, 4 * MIB, 1),
        (MIB, 16, 2, 7 * MIB, 6),  # a multiple of the threads
        (MIB, 16, 4, 7 * MIB, 4),
        (MIB, 16, 2, None, 16),
        (0, 16, 2, 0, 2),
    ],
)
def test_images_per_pass(working_set, batch, threads, budget, expected):
    assert images_per_pass(working_set, batch, threads, budget) == expected


@given(images=st.integers(0, 300), most=st.integers(1, 40), threads=st.integers(1, 5))
def test_passes_cover_every_image_once(images, most, threads):
    runs = passes(images, most, threads)
    assert [i for begin, end in runs for i in range(begin, end)] == list(range(images))
    assert all(0 < end - begin <= most for begin, end in runs)
    assert len(runs) <= -(-images // most)


def test_passes_are_even():
    assert passes(16, 7, 2) == [(0, 6), (6, 12), (12, 16)]
    assert passes(16, 9, 1) == [(0, 8), (8, 16)]
    assert passes(3, 16, 2) == [(0, 3)]


def plan(layers, budget, batch=16, dtype=torch.float32, threads=2) -> Plan:
    return plan_network(layers, batch=batch, dtype=dtype, threads=threads, budget_bytes=budget)


def test_plan_segments_follow_the_cache_budget(b0_layers):
    sizes = {
        budget: [segment.images for segment in plan(b0_layers, budget).segments]
        for budget in (None, 0, 16 * MIB, 64 * MIB)
    }
    assert sizes[None] == [16]
    assert sizes[0] == [2]
    assert sizes[16 * MIB] == [2, 4, 6, 8, 16]
    assert sizes[64 * MIB][0] > sizes[16 * MIB][0]
    for images in sizes.values():
        assert images == sorted(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plan_holds_no_large_map_for_small_weights(dtype):
    """128 images of B0 with an 8 MiB budget: the whole batch's early maps would be 200 and 100 MiB each."""
    network = fold(create_model("efficientnet_b0").eval())
    layers = network_layers(network, (224, 224), forms=BlockForm.WHOLE)
    made = plan(layers, 8 * MIB, batch=128, dtype=dtype)
    assert made.arena_bytes < 32 * MIB < plan(layers, None, batch=128, dtype=dtype).arena_bytes / 4
    images = {layer.name: segment.images for segment in made.segments for layer in segment.layers}
    assert images["stem"] == images["stages.0.0"] == images["stages.1.0"]  # a few KiB of weights
    assert images["stages.5.1"] >= 32  # 2 MiB of weights, which few passes are to read


def test_plan_changes_with_one_number(b0_layers):
    assert plan(b0_layers, 16 * MIB) == plan(b0_layers, 16 * MIB)
    assert plan(b0_layers, 16 * MIB).segments != plan(b0_layers, 12 * MIB).segments
    assert plan(b0_layers, 16 * MIB).segments != plan(b0_layers, 16 * MIB, dtype=torch.bfloat16).segments
    assert plan(b0_layers, 16 * MIB).segments != plan(b0_layers, 16 * MIB, threads=8).segments


def test_plan_keeps_blocks_whole_and_every_layer(b0_layers):
    made = plan(b0_layers, 16 * MIB)
    assert made.layers == tuple(b0_layers)
    for before, after in zip(made.segments, made.segments[1:], strict=False):
        assert before.layers[-1].block != after.layers[0].block


def test_plan_respects_the_budget_where_it_can(b0_layers):
    budget, made = 16 * MIB, plan(b0_layers, 16 * MIB)
    for segment in made.segments:
        for layer in segment.layers:
            working_set = 4 * (layer.x.numel + layer.y.numel) * segment.images
            assert working_set <= budget or segment.images == made.threads


def test_plan_arena_is_tight_and_small(b0_layers):
    whole, divided = plan(b0_layers, None), plan(b0_layers, 16 * MIB)
    for made in (whole, divided):
        assert made.peak_bytes <= made.arena_bytes <= 1.02 * made.peak_bytes
    assert divided.arena_bytes < whole.arena_bytes / 3
    half = plan(b0_layers, None, dtype=torch.bfloat16)
    assert half.arena_bytes == pytest.approx(whole.arena_bytes / 2, rel=0.01)


def test_plan_prints_as_a_table(b0_layers):
    text = str(plan(b0_layers, 16 * MIB))
    lines = text.splitlines()
    assert lines[0] == "batch 16, 224 x 224, float32 (float32 images), 2 threads"
    row = next(line for line in lines if "stages.1.1" in line)
    assert re.split(r"\s{2,}", row.strip()) == [
        "stages.1.1", "pointwise_conv", "1x1 silu", "24x56x56", "144x56x56", "2.0 MiB", "4",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 140
    assert not any(line != line.rstrip() for line in lines)
    assert "MiB" in lines[-1]


@pytest.mark.parametrize(("field", "value"), [("batch", 0), ("threads", 0)])
def test_plan_refuses_nonsense(small_layers, field, value):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got {value}"):
        plan(small_layers, None, **{field: value})


def test_plan_refuses_a_broken_network():
    image, a, b = Value(IMAGE, (3, 8, 8)), Value("a", (4, 4, 4)), Value("b", (4, 4, 4))
    stem = Layer("stem", "stem", "stem_conv", image, a, "silu")
    with pytest.raises(ValueError, match="next reads b, which no layer before it writes"):
        plan([stem, Layer("next", "next", "pointwise_conv", b, Value("c", (4, 4, 4)), "silu")], None)
    with pytest.raises(ValueError, match="next writes a, which is written already"):
        plan([stem, Layer("next", "next", "pointwise_conv", a, a, "silu")], None)


def run_symbolically(made: Plan, images: int) -> None:
    """Execute `made` on an arena of labels: every read must find what was written, for every image."""
    line = 64
    arena = np.full(made.arena_bytes // line + 1, -1, dtype=np.int64)
    labels = {name: number for number, name in enumerate(made.buffers)}

    def places(value: Value, begin: int, end: int):
        buffer = made.buffers[value.name]
        slot = 0 if buffer.images < made.batch else begin
        size = value.numel * buffer.dtype.itemsize
        for image in range(begin, end):
            start = buffer.offset + (slot + image - begin) * size
            assert start + size <= buffer.offset + buffer.nbytes <= made.arena_bytes
            # Whole cache lines inside the image's part: neighbours may share the first and the last.
            yield slice(-(-start // line), (start + size) // line), labels[value.name] * 100_000 + image

    for segment in made.segments:
        for begin, end in made.passes(images, segment):
            for layer in segment.layers:
                for value in layer.reads:
                    for where, label in places(value, begin, end):
                        assert (arena[where] == label).all(), f"{layer.name} reads a lost {value.name}"
                for value in layer.writes:
                    for where, label in places(value, begin, end):
                        arena[where] = label
    for where, label in places(made.output, 0, images):
        assert (arena[where] == label).all()


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 20),
    images=st.integers(1, 20),
    threads=st.integers(1, 4),
    budget=st.one_of(st.none(), st.integers(0, 2 * MIB)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_plan_never_loses_a_value(small_layers, batch, images, threads, budget, dtype):
    made = plan(small_layers, budget, batch=batch, dtype=dtype, threads=threads)
    run_symbolically(made, min(images, batch))


def test_symbolic_run_notices_a_wrong_offset(small_layers):
    made = plan(small_layers, 64 * KIB, batch=8)
    # The expansion of a residual block written over the block's input, which its projection still reads.
    shortcut, expand = made.buffers["stages.1.0.project"], made.buffers["stages.1.1.expand"]
    moved = dataclasses.replace(expand, offset=shortcut.offset)
    broken = dataclasses.replace(
        made, buffers={**made.buffers, "stages.1.1.expand": moved}, arena_bytes=2 * made.arena_bytes
    )
    with pytest.raises(AssertionError, match=r"stages\.1\.1\.project reads a lost stages\.1\.0\.project"):
        run_symbolically(broken, 8)
