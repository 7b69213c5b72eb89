"""Where two branches pay: a pure function of predictions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.inference.cost import Prediction, predict
from effnet_fast.inference.layers import IMAGE, Layer, Value
from effnet_fast.inference.overlap import Overlap, Stretch, choose_overlap, every_block, side_by_side
from effnet_fast.inference.planner import Plan, working_set_bytes
from effnet_fast.measure.ceilings import Ceilings
from effnet_fast.models import create_model

# Rates of an H200 as a cost model might measure them: nothing here was.
GPU = Ceilings(
    memory_bytes=3.8e12,
    cache_bytes=8e12,
    cache_size=50e6,
    matrix_macs=2e14,
    fused_macs=1.5e14,
    vector_macs=2e13,
    special=3e12,
    launch_seconds=2e-6,
    additive=False,
)


@functools.cache
def layers_of(name: str, form: BlockForm) -> tuple[Layer, ...]:
    with torch.device("meta"):
        model = create_model(name).eval()
    return network_layers(fold(model), (model.preprocessing.size,) * 2, forms=form)


def kernel(launch: float = 0.0, **parts: float) -> Prediction:
    return Prediction(launch + max(parts.values()), {"launch": launch, **parts})


def special(seconds: float) -> Prediction:
    return kernel(special=seconds, memory=0.0)


def memory(seconds: float) -> Prediction:
    return kernel(special=0.0, memory=seconds)


@pytest.mark.parametrize(
    ("half", "seconds"),
    [
        ([special(10)], 20),  # nothing to meet
        ([special(10), memory(10)], 30),
        ([special(10), memory(10)] * 2, 50),
        ([special(10)] * 4, 80),  # one resource serves both in turn
        # The first half's second kernel meets 10 of the other's 30; the rest of these meet their like.
        ([special(30), memory(10)] * 2, 2 * 30 + 10 + 2 * 20 + 10 + 10),
        # 1.5 times as long together as alone, for all of the memory's 10.
        ([special(10), kernel(special=5, memory=10)], 2 * 10 + 1.5 * 10),
        # Fork, join and each kernel's own launch, in which the other half does not advance.
        ([kernel(1, special=9, memory=0), kernel(1, special=0, memory=9)], 2 + 20 + 1.1 * 10),
    ],
)
def test_times_of_two_branches_by_hand(half, seconds):
    assert side_by_side(half) == pytest.approx(seconds)


predictions = st.builds(
    kernel,
    st.floats(0, 0.5),
    special=st.floats(0.1, 9),
    memory=st.floats(0.1, 9),
    matrix=st.floats(0, 9),
)


@given(st.lists(predictions, min_size=1, max_size=8))
def test_two_branches_take_no_less_than_their_busiest_resource_and_their_longest_path(half):
    taken = side_by_side(half)
    for name in ("special", "memory", "matrix"):
        assert taken >= 2 * sum(step.parts[name] for step in half) - 1e-9
    alone = sum(step.seconds for step in half)
    assert taken >= alone + half[0].seconds - 1e-9
    assert taken <= 2 * alone + 2 * max(step.parts["launch"] for step in half) + 1e-9


def chain(*blocks: int) -> list[Layer]:
    """Blocks of so many steps between a stem and a head; a step's name is its number."""
    value, layers = Value("stem", (8, 4, 4)), []
    layers.append(Layer("0", "stem", "stem_conv", Value(IMAGE, (3, 8, 8)), value, "silu"))
    for number, steps in enumerate(blocks):
        for _ in range(steps):
            after = Value(f"v{len(layers)}", (8, 4, 4))
            layers.append(Layer(str(len(layers)), f"b{number}", "pointwise_conv", value, after, "silu"))
            value = after
    pooled = Value("pooled", (8, 1, 1), single=True)
    layers.append(Layer(str(len(layers)), "head", "head_pool", value, pooled, "silu"))
    logits = Value("logits", (8, 1, 1), single=True)
    layers.append(Layer(str(len(layers)), "classifier", "pointwise_conv", pooled, logits, "identity"))
    return layers


def halving(steps: dict[str, Prediction]):
    """Half the images take half of everything but the launch."""

    def predicted(layer: Layer, images: int) -> Prediction:
        step = steps.get(layer.name, special(1))
        parts = {name: part * images / 8 for name, part in step.parts.items() if name != "launch"}
        return kernel(step.parts["launch"], **parts)

    return predicted


def test_blocks_of_unlike_kernels_are_chosen_and_others_are_not():
    layers = chain(2, 2, 1, 1, 2)
    steps = {
        "1": special(8),
        "2": memory(8),
        "3": special(8),
        "4": memory(8),
        "7": memory(8),
        "8": special(8),
    }
    by_half = halving(steps)

    def predicted(layer: Layer, images: int) -> Prediction:
        # Steps 5 and 6 take half the images as long as all of them: to pass them costs more than to join.
        return special(8) if layer.name in "56" else by_half(layer, images)

    chosen = choose_overlap(layers, 8, predicted)
    first, second = chosen.stretches
    assert (first.begin, first.end, first.first, first.last) == (1, 5, "b0", "b1")
    assert (first.one, first.two) == (pytest.approx(32), pytest.approx(20))
    assert (second.first, second.last) == ("b4", "b4")
    assert chosen.bounds == ((1, 5), (7, 9))
    assert choose_overlap(layers, 1, predicted) == Overlap(())
    assert choose_overlap(layers, 8, halving({str(n): memory(8) for n in range(12)})) == Overlap(())


def test_too_little_is_nothing_and_launches_count():
    layers = chain(2)
    steps = {"1": special(8), "2": memory(8)}  # a quarter less
    assert choose_overlap(layers, 8, halving(steps), least_gain=0.25).stretches
    assert not choose_overlap(layers, 8, halving(steps), least_gain=0.26).stretches
    launched = {"1": kernel(9, special=1, memory=0), "2": kernel(9, special=0, memory=1)}
    assert not choose_overlap(layers, 8, halving(launched)).stretches


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    seed=st.integers(0, 1 << 20),
    least=st.sampled_from([0.0, 0.05, 0.15]),
)
def test_no_other_stretches_gain_more(blocks, seed, least):
    layers, rng = chain(*blocks), random.Random(seed)
    steps = {
        layer.name: kernel(rng.choice([0, 0.2]), special=rng.uniform(0.1, 9), memory=rng.uniform(0.1, 9))
        for layer in layers
    }
    predicted = halving(steps)
    borders = [1, *itertools.accumulate(blocks, initial=1)][1:]

    def gain(begin: int, end: int) -> float:
        one = sum(predicted(layer, 8).seconds for layer in layers[begin:end])
        two = side_by_side([predicted(layer, 4) for layer in layers[begin:end]])
        return one - two if one - two >= least * one else -1.0

    def best(border: int) -> float:
        """By trying every set of stretches from a border on."""
        if border == len(borders) - 1:
            return 0.0
        taken = [gain(borders[border], borders[end]) + best(end) for end in range(border + 1, len(borders))]
        return max(best(border + 1), *taken)

    chosen = choose_overlap(layers, 8, predicted, least_gain=least)
    assert sum(gain(*bounds) for bounds in chosen.bounds) == pytest.approx(best(0), abs=1e-9)
    assert all(gain(*bounds) >= 0 for bounds in chosen.bounds)
    for before, after in itertools.pairwise(chosen.bounds):
        assert before[1] <= after[0]


def predicted_on_a_gpu(batch: int):
    def predicted(layer: Layer, images: int) -> Prediction:
        both = batch * working_set_bytes(layer, torch.float16, torch.uint8)
        return predict(layer, images, torch.float16, torch.uint8, GPU, working_set=both)

    return predicted


def test_the_early_blocks_of_b0_are_worth_it_and_one_image_never_is():
    layers = layers_of("efficientnet_b0", BlockForm.EXPANSION_FUSED)
    chosen = choose_overlap(layers, 256, predicted_on_a_gpu(256))
    inside = {layer.block for begin, end in chosen.bounds for layer in layers[begin:end]}
    assert {"stages.1.0", "stages.4.0", "stages.5.0"} <= inside
    assert not inside & {"stem", "head", "classifier"}
    assert all(stretch.two <= 0.95 * stretch.one for stretch in chosen.stretches)
    # 2 images take 2 microseconds of launches a kernel, and nothing else to speak of.
    assert choose_overlap(layers, 2, predicted_on_a_gpu(2)) == Overlap(())


def test_every_block_is_all_between_stem_and_head():
    layers = layers_of("efficientnet_b0", BlockForm.THREE_KERNELS)
    (stretch,) = every_block(layers).stretches
    assert (stretch.first, stretch.last, stretch.two) == ("stages.0.0", "stages.6.0", None)
    assert [layer.operator for layer in layers[stretch.end :]] == ["head_pool", "pointwise_conv"]
    assert every_block(layers[:1] + layers[-2:]) == Overlap(())


def small() -> Plan:
    with torch.device("meta"):
        network = fold(create_model("efficientnet_b0").eval())
    return plan_network(network_layers(network, (33, 32)), batch=4, dtype=torch.bfloat16)


def test_a_plan_says_what_it_expects_of_two_branches():
    stretches = (Stretch(3, 9, "stages.1.0", "stages.1.1", 2e-3, 1.5e-3), Stretch(9, 12, "a", "a"))
    plan = dataclasses.replace(small(), overlap=Overlap(stretches))
    lines = str(plan).splitlines()[-3:]
    assert lines == [
        "two branches: stages.1.0 to stages.1.1, predicted 1500.0 µs a batch instead of 2000.0",
        "two branches: a",
        "two branches: off until warmup() measures them",
    ]

    def last(**changes) -> str:
        return str(dataclasses.replace(plan, overlap=Overlap(stretches, **changes))).splitlines()[-1]

    assert last(graphs=(4, 6)) == "two branches: in graphs of 4, 6 images"
    assert last(graphs=()) == "two branches: off, measured to be slower"
    assert last(graphs=(), failure="no memory") == "two branches: off: no memory"
    nowhere = str(dataclasses.replace(plan, overlap=Overlap(()))).splitlines()[-1]
    assert nowhere == "two branches: predicted to pay nowhere"
    assert "branches" not in str(small())
