"""Predictions for GPUs: published figures, limits and what may not get cheaper; the form of every block."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch

from effnet_fast.backends import Backend
from effnet_fast.inference import draft as draft_module
from effnet_fast.inference import network_layers, plan_network
from effnet_fast.inference.cost import Prediction, overlapped_seconds, work
from effnet_fast.inference.expand_tiles import Variant, choose_tiling, tile
from effnet_fast.inference.gpu_cost import (
    EFFICIENCY,
    choose_block_forms,
    predict_on_gpu,
    predict_plan_on_gpu,
)
from effnet_fast.inference.gpu_work import gpu_work
from effnet_fast.inference.tuned_plans import BlockShape, BlockTimes, TunedPlan
from effnet_fast.measure.chips import CHIPS
from effnet_fast.measure.gpu_rates import nominal_rates
from tests.inference.gpu_networks import ASSUMED, FUSED, THREE, blocks, folded, image_size

HALF, PIXELS = torch.float16, torch.uint8
H200 = nominal_rates(CHIPS["h200"])
MANY = 1024  # images, so that no multiprocessor has much more to do than another

# Of B0, as predicted for the prototype of the fused kernel at the rates of `ASSUMED`, from instructions
# counted in its machine code: block, its kernel, bands and columns; microseconds an image of the fused kernel
# and what limits them, of three kernels if memory were all that limits these, and how much faster fused
# kernel and projection are than those. Each at the tiles that the prediction recommends, where the compiled
# ones have them.
PUBLISHED = [
    ("stages.1.0", Variant(3, 2, 32, 7), 1, 14, 0.538, "special", 1.737, 2.36),
    ("stages.1.1", Variant(3, 1, 48, 7), 2, 14, 0.334, "special", 1.074, 1.65),
    ("stages.2.0", Variant(5, 2, 48, 7), 1, 7, 0.252, "issue", 0.653, 1.99),
    ("stages.2.1", Variant(5, 1, 16, 7), 1, 28, 0.264, "tensor", 0.448, 1.13),
    ("stages.3.0", Variant(3, 2, 48, 4), 1, 14, 0.088, "special", 0.273, 2.26),
    ("stages.3.1", Variant(3, 1, 32, 7), 1, 14, 0.087, "tensor", 0.224, 1.46),
]


def seconds(layer, images=64, rates=H200, **options) -> float:
    return predict_on_gpu(layer, images, HALF, PIXELS, rates, **options).seconds


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case[0])
def test_published_predictions_of_b0(case):
    name, variant, bands, columns, fused, limit, three, gain = case
    fused_layers = blocks("efficientnet_b0", FUSED)[name]
    tiling = tile(fused_layers[0], MANY, 132, 228 << 10, variant, bands, columns)
    kernel = predict_on_gpu(fused_layers[0], MANY, HALF, HALF, ASSUMED, tiling=tiling)
    assert kernel.seconds * 1e6 / MANY == pytest.approx(fused, rel=0.07)
    assert kernel.bound == limit
    # Three kernels, and the projection, were taken to be limited by memory alone.
    memory = sum(
        work(layer, MANY, HALF, HALF).bytes_activations / (ASSUMED.memory_bytes * EFFICIENCY["memory"])
        for layer in blocks("efficientnet_b0", THREE)[name]
    )
    assert memory * 1e6 / MANY == pytest.approx(three, rel=0.03)
    moved = work(fused_layers[-1], MANY, HALF, HALF).bytes_activations
    projection = moved / (ASSUMED.memory_bytes * EFFICIENCY["memory"])
    assert memory / (kernel.seconds + projection) == pytest.approx(gain, rel=0.07)


def test_no_single_unit_limits_the_first_block_of_stage_2():
    """Shared memory, special functions, instructions and tensor cores are all within 16 %."""
    layer = blocks("efficientnet_b0", FUSED)["stages.2.0"][0]
    tiling = tile(layer, MANY, 132, 228 << 10, Variant(5, 2, 48, 7), 1, 7)
    parts = predict_on_gpu(layer, MANY, HALF, HALF, ASSUMED, tiling=tiling).parts
    units = [parts[name] for name in ("special", "issue", "tensor", "shared")]
    assert min(units) > 0.84 * max(units)
    assert parts["memory"] < 0.6 * max(units)


def test_a_whole_network_of_three_kernels_reads_and_writes_what_was_counted():
    """27.4 MB an image of B0 and 204 of B4, in float16; weights aside."""
    for name, megabytes in (("efficientnet_b0", 27.43), ("efficientnet_b4", 204.16)):
        layers = network_layers(folded(name), image_size(name), forms=THREE)
        moved = sum(
            gpu_work(layer, 4096, HALF, HALF, multiprocessors=132, shared_capacity=228 << 10).memory
            for layer in layers
        )
        assert moved / 4096e6 == pytest.approx(megabytes, rel=0.02)


def test_products_are_counted_in_whole_fragments():
    """A sum in steps of 16, columns by 8, and for the head whole groups of 64 of its 49 rows."""
    layers = blocks("efficientnet_b0", THREE)
    for layer, rows, depth, columns in (
        (layers["stages.1.1"][0], 56 * 56, 32, 144),  # of 24
        (layers["stages.2.1"][2], 28 * 28, 240, 40),
        (layers["stem"][0], 112 * 112, 32, 32),  # of 27
        (layers["head"][0], 64, 320, 1280),
    ):
        done = gpu_work(layer, 3, HALF, HALF, multiprocessors=132, shared_capacity=228 << 10)
        assert done.tensor == 3 * rows * depth * columns


def test_float32_has_no_tensor_cores():
    layer = blocks("efficientnet_b0", THREE)["stages.1.0"][0]
    half, single = (
        gpu_work(layer, 8, dtype, dtype, multiprocessors=132, shared_capacity=228 << 10)
        for dtype in (HALF, torch.float32)
    )
    assert half.tensor > 0 == single.tensor
    assert single.fma == 8 * 16 * 96 * 112 * 112
    with pytest.raises(ValueError, match=r"expand_depthwise_pool has no GPU kernel for 16 > 96 channels"):
        predict_on_gpu(
            blocks("efficientnet_b0", FUSED)["stages.1.0"][0], 8, torch.float32, torch.float32, H200
        )


def every_layer():
    for form in (THREE, FUSED):
        for name, layers in blocks("efficientnet_b0", form).items():
            if form is THREE or name[:8] in ("stages.1", "stages.2", "stages.3", "stages.4"):
                yield from layers
    yield from (layer for group in blocks("efficientnetv2_b0", THREE).values() for layer in group)


@pytest.mark.parametrize("chip", ["h200", "a100", "rtx4090"])
def test_more_images_never_take_less(chip):
    rates = nominal_rates(CHIPS[chip])
    for layer in every_layer():
        # The fused kernel takes other tiles for other batches, by a measure of its own: the same ones here.
        tiling = None
        if layer.expands:
            tiling = choose_tiling(layer, 512, rates.multiprocessors, rates.shared_capacity)
        batches = (1, 2, 3, 4, 8, 15, 16, 32, 64, 100, 128, 256, 512)
        taken = [predict_on_gpu(layer, images, HALF, PIXELS, rates, tiling=tiling) for images in batches]
        for fewer, more in itertools.pairwise(taken):
            # With more images at work the gates may take fewer kernels: see test_depthwise_blocks.py.
            saved = max(0.0, fewer.parts["launch"] - more.parts["launch"])
            assert not saved or layer.squeeze
            assert fewer.seconds - saved <= more.seconds * (1 + 1e-9), (layer.name, layer.operator, taken)


FASTER = [
    field.name
    for field in dataclasses.fields(H200)
    if field.name.endswith("_bytes") or field.name in ("tensor_macs", "fma", "special", "issue", "cache_size")
]


@pytest.mark.parametrize("rate", FASTER)
def test_no_faster_unit_takes_longer(rate):
    better = dataclasses.replace(H200, **{rate: 2 * getattr(H200, rate)})
    gained = 0
    for layer in every_layer():
        for images in (1, 64, 256):
            before, after = seconds(layer, images), seconds(layer, images, better)
            assert after <= before
            gained += after < 0.99 * before
    assert gained or rate in ("fma", "cache_bytes", "shared_bytes")


def test_few_blocks_leave_multiprocessors_idle():
    """A head of 1280 channels has 40 blocks an image for 132 multiprocessors: two images take no longer."""
    (layer,) = blocks("efficientnet_b0", THREE)["head"]
    one, two = (predict_on_gpu(layer, images, HALF, HALF, H200).parts["tensor"] for images in (1, 2))
    assert two == pytest.approx(one)
    many, more = (predict_on_gpu(layer, images, HALF, HALF, H200).parts["tensor"] for images in (512, 1024))
    assert more == pytest.approx(2 * many, rel=0.02)
    assert many / 512 < 0.2 * one


def test_a_prediction_is_its_launches_and_its_slowest_unit():
    for layer in every_layer():
        prediction = predict_on_gpu(layer, 16, HALF, PIXELS, H200)
        units = [prediction.parts[name] for name in EFFICIENCY]
        assert prediction.seconds == pytest.approx(prediction.parts["launch"] + max(units))
        assert set(prediction.parts) == {"launch", *EFFICIENCY}


def test_kernels_are_counted_where_the_gate_needs_several():
    """Small ones of many images end in the depthwise kernel; behind the fused one they are two, or three."""
    for block, form, layer, images, launches in (
        ("stages.1.0", THREE, 1, 256, 1),  # 2 * 96 * 4 weights
        ("stages.1.0", THREE, 1, 4, 4),  # nothing hides that end, and many blocks have sums to add up
        ("stages.6.0", THREE, 1, 256, 3),  # 2 * 1152 * 48 weights
        ("stages.1.0", FUSED, 0, 4, 1),
        ("stages.1.0", FUSED, 1, 256, 3),  # 4 x 4 tiles to add up
        ("stages.1.0", FUSED, 1, 4, 2),  # which idle multiprocessors do on the way
        ("stages.4.1", FUSED, 1, 256, 2),  # one tile
    ):
        parts = predict_on_gpu(blocks("efficientnet_b0", form)[block][layer], images, HALF, HALF, H200).parts
        assert parts["launch"] == pytest.approx(launches * H200.launch_seconds)


def forms(name="efficientnet_b0", images=256, rates=H200, **options):
    options = {"dtype": HALF, "image_dtype": PIXELS, **options}
    return choose_block_forms(folded(name), image_size(name), images=images, rates=rates, **options)


def fused(choices) -> set[str]:
    return {name for name, choice in choices.items() if choice.form is FUSED}


@pytest.mark.parametrize("images", [64, 128, 256])
def test_early_stages_of_b0_are_fused_and_late_ones_are_not(images):
    choices = forms(images=images)
    chosen = fused(choices)
    assert {"stages.1.0", "stages.1.1", "stages.2.0", "stages.3.0"} <= chosen
    assert not any(name.startswith(("stages.0", "stages.4", "stages.5", "stages.6")) for name in chosen)
    assert all(choice.reason == "predicted" for choice in choices.values() if len(choice.predicted) == 2)
    # 192 input channels are more than a thread's registers hold weights for; stage 0 has nothing to fuse.
    assert choices["stages.5.1"].reason == choices["stages.0.0"].reason == "only form"


@pytest.mark.parametrize("name", ["efficientnet_b4", "efficientnet_b7"])
def test_of_larger_networks_all_of_stage_1_and_first_blocks_are_fused(name):
    chosen = fused(forms(name, images=64))
    stage = {block for block in blocks(name, THREE) if block.startswith("stages.1.")}
    assert stage | {"stages.2.0", "stages.3.0"} <= chosen
    assert not any(block.startswith(("stages.5", "stages.6")) for block in chosen)


def test_one_image_is_hardly_fused_since_launches_count():
    """B0's kernels take 1 to 3 us of one image; a fused block has a launch or two less of five or six."""
    choices = forms(images=1)
    assert fused(choices) <= {"stages.1.0", "stages.1.1"}
    for choice in choices.values():
        if len(choice.predicted) == 2:
            three, other = (choice.predicted[form].parts["launch"] for form in (THREE, FUSED))
            assert round((three - other) / H200.launch_seconds) in (1, 2)


def test_float32_and_blocks_without_kernels_are_three_kernels():
    assert fused(forms(dtype=torch.float32)) == set()
    choices = forms("tf_efficientnetv2_s", images=64)
    assert {choice.form for name, choice in choices.items() if name.startswith("stages.1")} <= {THREE}


def test_a_choice_is_never_predicted_slower_than_the_other_form():
    for choice in forms("efficientnet_b4").values():
        least = min(prediction.seconds for prediction in choice.predicted.values())
        assert choice.predicted[choice.form].seconds <= 1.25 * least
        if choice.form is FUSED:
            assert 1.25 * choice.predicted[FUSED].seconds < choice.predicted[THREE].seconds


def test_slow_memory_fuses_more_and_slow_tensor_cores_less():
    before = fused(forms())
    starved = dataclasses.replace(H200, memory_bytes=H200.memory_bytes / 4, cache_size=1)
    assert before < fused(forms(rates=starved))
    slow = dataclasses.replace(H200, tensor_macs=H200.tensor_macs / 8)
    assert fused(forms(rates=slow)) < before


def test_what_was_measured_goes_before_what_is_predicted():
    layers = blocks("efficientnet_b0", THREE)
    entries = tuple(
        BlockTimes(BlockShape.of(layers[name]), 256, "float16", three, other)
        for name, three, other in (("stages.1.0", 100.0, 130.0), ("stages.4.1", 100.0, 99.0))
    )
    choices = forms(tuned=TunedPlan("NVIDIA H200", entries))
    assert choices["stages.1.0"].form is THREE
    assert choices["stages.4.1"].form is choices["stages.4.2"].form is FUSED  # the same shape
    assert choices["stages.1.0"].reason == "measured"
    assert choices["stages.1.0"].measured == {THREE: pytest.approx(1e-4), FUSED: pytest.approx(1.3e-4)}
    assert choices["stages.2.0"].reason == "predicted"


def test_a_plan_is_predicted_step_by_step():
    chosen = {name: choice.form for name, choice in forms(images=8).items()}
    layers = network_layers(folded("efficientnet_b0"), (224, 224), forms=chosen)
    plan = plan_network(layers, batch=8, dtype=HALF, image_dtype=PIXELS)
    predictions = predict_plan_on_gpu(plan, H200)
    assert list(predictions) == [layer.name for layer in layers]
    assert predictions["stem"] == predict_on_gpu(layers[0], 8, HALF, PIXELS, H200)
    assert predict_plan_on_gpu(plan, H200, images=2)["head"].seconds < predictions["head"].seconds
    dataclasses.replace(plan, predictions=predictions).__str__()


def made(launch: float, **parts: float) -> Prediction:
    return Prediction(launch + max(parts.values()), {"launch": launch, **parts})


def test_kernels_side_by_side_share_every_unit():
    fused_kernel, projection = made(1.0, special=8.0, memory=3.0), made(1.0, special=0.0, memory=6.0)
    assert overlapped_seconds(fused_kernel, projection) == 2.0 + 9.0
    assert overlapped_seconds(projection, projection) == 2.0 + 12.0
    assert overlapped_seconds(made(0.0, memory=5.0), made(0.0, tensor=4.0)) == 5.0


def test_side_by_side_is_between_the_longer_one_and_both():
    pairs = [predict_on_gpu(layer, 32, HALF, HALF, H200) for layer in every_layer()]
    for a, b in itertools.pairwise(pairs):
        together = overlapped_seconds(a, b)
        assert together == overlapped_seconds(b, a)
        assert max(a.seconds, b.seconds) <= together <= (a + b).seconds * (1 + 1e-12)
    # Whose seconds are more than its parts say: never less than it takes alone.
    assert overlapped_seconds(Prediction(9.0, {"launch": 1.0, "memory": 2.0}), made(0.0, memory=1.0)) == 9.0


def test_overlapping_the_fused_kernel_with_a_projection_gains_what_was_published():
    """Stage 1 of B0: 1.41 us an image one after the other, 1.06 side by side."""
    alone, together = 0.0, 0.0
    for name, variant, bands, columns, *_ in PUBLISHED[:2]:
        layers = blocks("efficientnet_b0", FUSED)[name]
        tiling = tile(layers[0], MANY, 132, 228 << 10, variant, bands, columns)
        kernel = predict_on_gpu(layers[0], MANY, HALF, HALF, ASSUMED, tiling=tiling)
        projection = predict_on_gpu(layers[-1], MANY, HALF, HALF, ASSUMED)
        alone += (kernel + projection).seconds * 1e6 / MANY
        together += overlapped_seconds(kernel, projection) * 1e6 / MANY
    assert alone == pytest.approx(1.41, rel=0.05)
    assert together == pytest.approx(1.06, rel=0.1)


@pytest.mark.parametrize("kernel", [True, False])
def test_an_engine_on_a_gpu_takes_these_forms(kernel, monkeypatch):
    """Measured rates and measured blocks decide there; without the fused kernel nothing is measured."""
    asked = []
    made = SimpleNamespace(
        resolve=lambda *given, **options: Backend.CUDA,
        has_kernel=lambda name, backend: kernel and name == "expand_depthwise_into",
    )
    monkeypatch.setattr(draft_module, "backend_choice", made)
    monkeypatch.setattr(draft_module, "measured_rates", lambda *given: asked.append(given) or H200)
    shape = BlockShape.of(blocks("efficientnet_b0", THREE)["stages.1.0"])
    tuned = TunedPlan("NVIDIA H200", (BlockTimes(shape, 64, "float16", 1.0, 2.0),))
    monkeypatch.setattr(draft_module, "tuned_plan", {"NVIDIA H200": tuned}.__getitem__)
    device = torch.device("cuda", 0)
    chosen = draft_module.choose_forms(
        folded("efficientnet_b0"), (224, 224), batch=64, dtype=HALF, image_dtype=PIXELS, device=device
    )
    if not kernel:
        assert set(chosen.values()) == {THREE}
        assert asked == []
        return
    assert chosen == {name: choice.form for name, choice in forms(images=64, tuned=tuned).items()}
    assert chosen["stages.1.0"] is THREE
    assert chosen["stages.1.1"] is FUSED
    assert asked == [(device, HALF)]
