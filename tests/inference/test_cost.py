"""The cost model: work counted by hand and by the models' own counts, time by arithmetic, plans that flip."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.inference.cost import (
    Prediction,
    Work,
    choose_fused_blocks,
    predict,
    predict_plan,
    work,
)
from effnet_fast.inference.packing import layer_weights
from effnet_fast.measure.ceilings import Ceilings
from effnet_fast.models import create_model, list_models, macs_by_kind, model_config

HALF, SINGLE, PIXELS = torch.float16, torch.float32, torch.uint8

CPU = Ceilings(
    memory_bytes=4e10,
    cache_bytes=1e11,
    cache_size=32 << 20,
    matrix_macs=1e11,
    fused_macs=1e11,
    vector_macs=5e10,
    special=2e10,
    launch_seconds=2e-6,
    additive=True,
)
GPU = dataclasses.replace(CPU, additive=False)


@functools.cache
def meta(name: str):
    with torch.device("meta"):
        return create_model(name).eval()


@functools.cache
def folded(name: str):
    return fold(meta(name))


@functools.cache
def layers_of(name: str, form: BlockForm = BlockForm.THREE_KERNELS):
    side = model_config(name).resolution
    return network_layers(folded(name), (side, side), forms=form)


def b0(layer: str, form: BlockForm = BlockForm.THREE_KERNELS):
    return next(one for one in layers_of("efficientnet_b0", form) if one.name == layer)


THREE, FUSED, WHOLE = BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED, BlockForm.WHOLE

# (layer, form of its block): two images, float16 maps, uint8 pixels. 112 x 112 = 12 544, 56 x 56 = 3136.
BY_HAND = {
    # 3 > 32 channels, 3x3 /2, SiLU
    ("stem", THREE): Work(
        bytes_activations=2 * (3 * 224 * 224 + 32 * 12544 * 2),
        bytes_weights=27 * 32 * 2 + 32 * 4,
        bytes_reread=0,
        matrix_macs=2 * 27 * 32 * 12544,
        fused_macs=0,
        vector_macs=0,
        special=2 * 32 * 12544,
    ),
    # 32 channels, 3x3, SiLU; squeeze-excite 32 > 8 > 32 with SiLU and sigmoid; 32 gates written
    ("stages.0.0.depthwise", THREE): Work(
        bytes_activations=2 * (2 * 32 * 12544 * 2 + 32 * 4),
        bytes_weights=9 * 32 * 2 + 32 * 4 + (2 * 32 * 8 + 8 + 32) * 4,
        bytes_reread=2 * 32 * 8 * 4,
        matrix_macs=2 * (2 * 32 * 8),
        fused_macs=0,
        vector_macs=2 * 9 * 32 * 12544,
        special=2 * (32 * 12544 + 8 + 32),
    ),
    # 32 > 16, gates read, no residual
    ("stages.0.0.project", THREE): Work(
        bytes_activations=2 * (32 * 12544 * 2 + 32 * 4 + 16 * 12544 * 2),
        bytes_weights=32 * 16 * 2 + 16 * 4,
        bytes_reread=0,
        matrix_macs=2 * 32 * 16 * 12544,
        fused_macs=0,
        vector_macs=0,
        special=0,
    ),
    # 16 > 96, SiLU
    ("stages.1.0.expand", THREE): Work(
        bytes_activations=2 * (16 + 96) * 12544 * 2,
        bytes_weights=16 * 96 * 2 + 96 * 4,
        bytes_reread=0,
        matrix_macs=2 * 16 * 96 * 12544,
        fused_macs=0,
        vector_macs=0,
        special=2 * 96 * 12544,
    ),
    # the same and its 3x3 /2 depthwise; partial sums of 4 x 4 tiles
    ("stages.1.0.depthwise", FUSED): Work(
        bytes_activations=2 * (16 * 12544 * 2 + 96 * 3136 * 2 + 96 * 16 * 4),
        bytes_weights=(16 * 96 + 9 * 96) * 2 + 2 * 96 * 4,
        bytes_reread=0,
        matrix_macs=0,
        fused_macs=2 * 16 * 96 * 12544,
        vector_macs=2 * 9 * 96 * 3136,
        special=2 * 96 * (12544 + 3136),
    ),
    # 96 > 4 > 96 from those sums
    ("stages.1.0.squeeze_excite", FUSED): Work(
        bytes_activations=2 * (96 * 16 * 4 + 96 * 4),
        bytes_weights=(2 * 96 * 4 + 4 + 96) * 4,
        bytes_reread=2 * 96 * 4 * 4,
        matrix_macs=2 * (2 * 96 * 4),
        fused_macs=0,
        vector_macs=0,
        special=2 * (4 + 96),
    ),
    # 144 > 24 with gates and residual
    ("stages.1.1.project", FUSED): Work(
        bytes_activations=2 * (144 * 3136 * 2 + 144 * 4 + 2 * 24 * 3136 * 2),
        bytes_weights=144 * 24 * 2 + 24 * 4,
        bytes_reread=0,
        matrix_macs=2 * 144 * 24 * 3136,
        fused_macs=0,
        vector_macs=0,
        special=0,
    ),
    # all of the block without an expansion: 32 channels, 3x3, squeeze-excite 32 > 8 > 32, projection 32 > 16
    ("stages.0.0", WHOLE): Work(
        bytes_activations=2 * (32 + 16) * 12544 * 2,
        bytes_weights=(9 * 32 + 32 * 16) * 2 + (32 + 16) * 4 + (2 * 32 * 8 + 8 + 32) * 4,
        bytes_reread=2 * 32 * 8 * 4,
        matrix_macs=2 * (2 * 32 * 8 + 32 * 16 * 12544),
        fused_macs=0,
        vector_macs=2 * 9 * 32 * 12544,
        special=2 * (32 * 12544 + 8 + 32),
    ),
    # 24 > 144, 3x3, squeeze-excite 144 > 6 > 144, 144 > 24 and the block's input, read twice
    ("stages.1.1", WHOLE): Work(
        bytes_activations=2 * 3 * 24 * 3136 * 2,
        bytes_weights=(24 * 144 + 9 * 144 + 144 * 24) * 2 + (2 * 144 + 24) * 4 + (2 * 144 * 6 + 6 + 144) * 4,
        bytes_reread=2 * 144 * 6 * 4,
        matrix_macs=2 * (2 * 144 * 6 + 144 * 24 * 3136),
        fused_macs=2 * 24 * 144 * 3136,
        vector_macs=2 * 9 * 144 * 3136,
        special=2 * (2 * 144 * 3136 + 6 + 144),
    ),
    # 320 > 1280 on 7 x 7, SiLU, and the mean of it in float32
    ("head", THREE): Work(
        bytes_activations=2 * (320 * 49 * 2 + 1280 * 4),
        bytes_weights=320 * 1280 * 2 + 1280 * 4,
        bytes_reread=0,
        matrix_macs=2 * 320 * 1280 * 49,
        fused_macs=0,
        vector_macs=0,
        special=2 * 1280 * 49,
    ),
    # 1280 > 1000, float32 throughout
    ("classifier", THREE): Work(
        bytes_activations=2 * (1280 + 1000) * 4,
        bytes_weights=1280 * 1000 * 4 + 1000 * 4,
        bytes_reread=0,
        matrix_macs=2 * 1280 * 1000,
        fused_macs=0,
        vector_macs=0,
        special=0,
    ),
}


@pytest.mark.parametrize("key", BY_HAND, ids=lambda key: f"{key[0]}, {key[1]}")
def test_work_counted_by_hand(key):
    assert work(b0(*key), 2, HALF, PIXELS) == BY_HAND[key]


def test_dense_convolutions_count_every_channel():
    """A FusedMBConv expansion of efficientnetv2_s: 3x3 /2, 24 > 96 channels, from 192 x 192 to 96 x 96."""
    layer = next(one for one in layers_of("efficientnetv2_s") if one.name == "stages.1.0.expand")
    done = work(layer, 1, HALF, HALF)
    assert layer.operator == "dense_conv"
    assert done.matrix_macs == done.macs == 9 * 24 * 96 * 96 * 96
    assert done.special == 96 * 96 * 96


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv2_100"])
def test_relu6_is_no_special_function(name):
    assert all(work(layer, 1, HALF, HALF).special == 0 for layer in layers_of(name))


def small(name: str) -> bool:
    return not name.startswith("tf_") and not name.endswith(("l2", "_l", "_xl", "b6", "b7", "b8"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if small(n) else pytest.mark.slow) for n in list_models()]
)
def test_whole_networks_have_the_models_multiply_adds(name):
    kinds = macs_by_kind(meta(name))
    for form in (THREE, FUSED, BlockForm.WHOLE):
        every = [work(layer, 1, SINGLE, SINGLE) for layer in layers_of(name, form)]
        assert sum(done.vector_macs for done in every) == kinds["depthwise"]
        assert sum(done.macs for done in every) == sum(kinds.values())
        assert any(done.fused_macs for done in every) == (form is not THREE)


def test_seconds_add_up_on_a_cpu_and_the_slowest_unit_counts_on_a_gpu():
    layer = b0("stages.0.0.depthwise")
    done = work(layer, 2, SINGLE, SINGLE)
    memory = (done.bytes_activations + done.bytes_weights + done.bytes_reread) / 1e11
    units = [memory, done.matrix_macs / 1e11, done.vector_macs / 5e10, done.special / 2e10]
    assert predict(layer, 2, SINGLE, SINGLE, CPU).seconds == pytest.approx(2e-6 + sum(units))
    assert predict(layer, 2, SINGLE, SINGLE, GPU).seconds == pytest.approx(2e-6 + max(units))


def test_expansions_in_a_depthwise_kernel_have_a_rate_of_their_own():
    layer = b0("stages.1.0.depthwise", FUSED)
    slow = dataclasses.replace(CPU, fused_macs=1e10)
    slower = predict(layer, 1, HALF, HALF, slow).seconds - predict(layer, 1, HALF, HALF, CPU).seconds
    assert slower == pytest.approx(16 * 96 * 12544 * (1e-10 - 1e-11))


def test_traffic_stays_in_the_cache_while_x_and_y_fit():
    layer = b0("stages.1.0.expand")
    one = (16 + 96) * 12544 * 4  # bytes of x and y of an image
    ceilings = dataclasses.replace(CPU, cache_size=3 * one)
    done = work(layer, 3, SINGLE, SINGLE)
    traffic = done.bytes_activations + done.bytes_weights
    assert predict(layer, 3, SINGLE, SINGLE, ceilings).parts["memory"] == pytest.approx(traffic / 1e11)
    done = work(layer, 4, SINGLE, SINGLE)
    traffic = done.bytes_activations + done.bytes_weights
    assert predict(layer, 4, SINGLE, SINGLE, ceilings).parts["memory"] == pytest.approx(traffic / 4e10)
    given = predict(layer, 4, SINGLE, SINGLE, ceilings, working_set=one)
    assert given.parts["memory"] == pytest.approx(traffic / 1e11)


@pytest.mark.parametrize(
    ("ceiling", "value", "bound"),
    [
        ("memory_bytes", 1e8, "memory"),
        ("matrix_macs", 1e8, "matrix"),
        ("vector_macs", 1e8, "vector"),
        ("special", 1e7, "special"),
        ("launch_seconds", 1.0, "launch"),
    ],
)
def test_one_low_ceiling_is_the_bound(ceiling, value, bound):
    ceilings = dataclasses.replace(CPU, cache_size=1, **{ceiling: value})
    layer = b0("stem") if bound == "matrix" else b0("stages.0.0.depthwise")
    assert predict(layer, 4, SINGLE, SINGLE, ceilings).bound == bound


def test_predictions_add():
    both = Prediction(3.0, {"launch": 1.0, "memory": 2.0}) + Prediction(5.0, {"launch": 4.0, "memory": 1.0})
    assert both == Prediction(8.0, {"launch": 5.0, "memory": 3.0})
    assert both.bound == "launch"


def test_a_plan_is_predicted_pass_by_pass():
    plan = plan_network(
        layers_of("efficientnet_b0"), batch=5, dtype=HALF, image_dtype=PIXELS, threads=2, budget_bytes=4 << 20
    )
    predictions = predict_plan(plan, CPU)
    assert list(predictions) == [layer.name for layer in plan.layers]
    # Few images at a time at the stem, all of them at the head: 2 + 2 + 1 and 5.
    assert plan.passes(5, plan.segments[0]) == [(0, 2), (2, 4), (4, 5)]
    passes = [predict(b0("stem"), images, HALF, PIXELS, CPU).seconds for images in (2, 2, 1)]
    assert predictions["stem"].seconds == pytest.approx(sum(passes))
    assert predictions["head"] == predict(b0("head"), 5, HALF, PIXELS, CPU)
    assert predict_plan(plan, CPU, images=2)["stem"] == predict(b0("stem"), 2, HALF, PIXELS, CPU)


def chosen(ceilings: Ceilings, images: int = 4, name: str = "efficientnet_b0") -> frozenset[str]:
    return choose_fused_blocks(
        folded(name), (224, 224), images=images, dtype=SINGLE, image_dtype=SINGLE, ceilings=ceilings
    )


BLOCKS = {0: 1, 1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 1}  # of B0's stages; the first has no expansion
EXPANDING = frozenset(f"stages.{stage}.{block}" for stage in range(1, 7) for block in range(BLOCKS[stage]))


def test_equal_rates_fuse_every_expansion_and_nothing_else():
    assert chosen(CPU) == chosen(GPU) == EXPANDING
    assert chosen(CPU, name="efficientnetv2_b0") < {
        block.name for block in folded("efficientnetv2_b0").blocks
    }


def test_a_slow_ring_unfuses_and_a_slow_memory_fuses_again():
    """One ceiling changes at a time."""
    slow_ring = dataclasses.replace(CPU, fused_macs=2e10)
    assert chosen(slow_ring) == frozenset()
    # Nothing stays in a cache of one byte, so that the expanded tensor goes through memory twice.
    uncached = dataclasses.replace(slow_ring, cache_size=1)
    slow_memory = dataclasses.replace(uncached, memory_bytes=1e8)
    assert chosen(uncached) == frozenset()
    assert chosen(slow_memory) == EXPANDING


def test_early_blocks_are_fused_first():
    """Their expanded tensors are large for their multiply-adds: in between, blocks differ."""
    between = chosen(dataclasses.replace(CPU, cache_size=1, fused_macs=5e10))
    assert "stages.1.0" in between
    assert "stages.5.1" not in between


def test_noise_does_not_choose():
    assert chosen(dataclasses.replace(CPU, fused_macs=0.95e11)) == EXPANDING


@pytest.mark.parametrize("ceilings", [CPU, GPU, dataclasses.replace(CPU, cache_size=1, fused_macs=5e10)])
def test_the_choice_is_never_predicted_slower_than_either_plan(ceilings):
    def seconds(forms) -> float:
        layers = network_layers(folded("efficientnet_b0"), (224, 224), forms=forms)
        return sum(predict(layer, 4, SINGLE, SINGLE, ceilings).seconds for layer in layers)

    mixed = seconds(dict.fromkeys(chosen(ceilings), FUSED))
    assert mixed <= 1.1 * min(seconds(THREE), seconds(FUSED))


def test_a_mixed_plan_has_weights_for_its_layers():
    some = {"stages.1.0": FUSED, "stages.4.2": FUSED, "stages.0.0": WHOLE, "stages.6.0": WHOLE}
    layers = network_layers(folded("efficientnet_b0"), (224, 224), forms=some)
    weights = layer_weights(folded("efficientnet_b0"), forms=some)
    assert [(one.name, one.operator) for one in weights] == [(one.name, one.operator) for one in layers]
    for operator, form in (("expand_depthwise_pool", FUSED), ("mbconv", WHOLE)):
        blocks = [one.block for one in layers if one.operator == operator]
        assert sorted(blocks) == sorted(name for name in some if some[name] is form)
