"""Where the values of two branches lie: no order of their steps loses one, and little memory is added."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_fast.inference import BlockForm, branches, fold, network_layers, plan_network
from effnet_fast.inference.branches import two_branch_plan
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.layers import Layer, Value
from effnet_fast.inference.overlap import every_block
from effnet_fast.inference.planner import Plan, halves
from effnet_fast.models import create_model


def run_symbolically(made: Plan, images: int, rng: random.Random) -> None:
    """Execute `made` on an arena of labels, branches in a random order: every read finds what was written."""
    line = 64
    arena = np.full(made.arena_bytes // line + 1, -1, dtype=np.int64)
    labels = {name: number for number, name in enumerate(made.buffers)}

    def places(value: Value, begin: int, end: int, branch: int):
        buffer = made.buffers[value.name]
        at = buffer.second if branch and buffer.second is not None else buffer.offset
        slot = 0 if buffer.images < made.batch else begin
        size = value.numel * buffer.dtype.itemsize
        assert slot + end - begin <= buffer.images
        for image in range(begin, end):
            start = at + (slot + image - begin) * size
            assert start + size <= made.arena_bytes
            yield slice(-(-start // line), (start + size) // line), labels[value.name] * 100_000 + image

    def run(layer: Layer, *where: int) -> None:
        for value in layer.reads:
            for lines, label in places(value, *where):
                assert (arena[lines] == label).all(), f"{layer.name} reads a lost {value.name}"
        for value in layer.writes:
            for lines, label in places(value, *where):
                arena[lines] = label

    for segment in made.segments:
        runs = made.passes(images, segment)
        orders = [number for number, _ in enumerate(runs) for _ in segment.layers]
        if segment.branches == 2:
            rng.shuffle(orders)
        steps = [iter(segment.layers) for _ in runs]
        for number in orders:
            run(next(steps[number]), *runs[number], number if segment.branches == 2 else 0)
    for lines, label in places(made.output, 0, images, 0):
        assert (arena[lines] == label).all()


@functools.cache
def small(batch: int, form: BlockForm = BlockForm.THREE_KERNELS) -> Plan:
    with torch.device("meta"):
        network = fold(create_model("efficientnet_b0").eval())
    return plan_network(network_layers(network, (33, 32), forms=form), batch=batch, dtype=torch.bfloat16)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(2, 9),
    images=st.integers(1, 9),
    form=st.sampled_from([BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED]),
    cuts=st.lists(st.integers(0, 16), min_size=2, max_size=4, unique=True).filter(lambda c: len(c) % 2 == 0),
    seed=st.integers(0, 1 << 20),
)
def test_no_order_of_two_branches_loses_a_value(batch, images, form, cuts, seed):
    plan = small(batch, form)
    borders = [n for n, layer in enumerate(plan.layers) if layer.block != plan.layers[n - 1].block][1:]
    bounds = sorted(borders[cut] for cut in cuts)
    made = two_branch_plan(plan, list(zip(bounds[::2], bounds[1::2], strict=True)))
    assert made.layers == plan.layers
    assert sum(segment.branches == 2 for segment in made.segments) == len(bounds) // 2
    for again in range(4):
        run_symbolically(made, min(images, batch), random.Random(seed + again))


def test_what_enters_or_leaves_a_stretch_lives_throughout():
    plan = small(4)
    borders = [n for n, layer in enumerate(plan.layers) if layer.block != plan.layers[n - 1].block][1:17]
    for begin, end in itertools.combinations(borders, 2):
        made = two_branch_plan(plan, [(begin, end)])
        inside = {value.name for layer in plan.layers[begin:end] for value in (*layer.reads, *layer.writes)}
        for name in inside:
            buffer = made.buffers[name]
            whole = buffer.images == made.batch
            assert whole == (buffer.second is None)
            assert not whole or (buffer.first <= begin and buffer.last >= end - 1), name


def test_the_symbolic_run_sees_halves_that_share_memory():
    plan = small(6)
    made = two_branch_plan(plan, every_block(plan.layers).bounds)
    shared = {name: dataclasses.replace(buffer, second=None) for name, buffer in made.buffers.items()}
    with pytest.raises(AssertionError, match="reads a lost"):
        run_symbolically(dataclasses.replace(made, buffers=shared), 6, random.Random(0))


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b4", "efficientnet_b7"])
@pytest.mark.parametrize("form", [BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED])
def test_two_halves_need_hardly_more_than_one_whole(name, form):
    with torch.device("meta"):
        model = create_model(name).eval()
    layers = network_layers(fold(model), (model.preprocessing.size,) * 2, forms=form)
    plan = plan_network(layers, batch=64, dtype=torch.float16)
    (whole,) = every_block(layers).bounds
    late = (next(n for n, layer in enumerate(layers) if layer.block == "stages.1.0"), whole[1])
    for bounds, most in ((whole, 1.4), (late, 1.15)):
        made = two_branch_plan(plan, [bounds])
        assert made.peak_bytes <= made.arena_bytes <= 1.1 * made.peak_bytes
        assert made.arena_bytes <= most * plan.arena_bytes
        assert made == two_branch_plan(plan, [bounds])


def test_auto_leaves_out_the_blocks_that_take_too_much_memory(monkeypatch):
    def predicted(layer, images, *shapes, working_set) -> Prediction:
        # Unlike kernels everywhere, so that all blocks are worth it.
        bound = "memory" if layer.operator == "pointwise_conv" else "special"
        return Prediction(images, {"launch": 0.0, "memory": 0.0, "special": 0.0, bound: images})

    monkeypatch.setattr(branches, "measured_rates", lambda device, dtype: None)
    monkeypatch.setattr(branches, "predict_on_gpu", predicted)
    with torch.device("meta"):
        network = fold(create_model("efficientnet_b4").eval())
    plan = plan_network(network_layers(network, (380, 380)), batch=8, dtype=torch.float16)
    asked = []
    chosen, branched = branches.resolve_branches(plan, "auto", torch.device("cuda"), asked.append)
    assert [stretch.first for stretch in chosen.overlap.stretches] == ["stages.0.1"]
    assert chosen.overlap.bounds == tuple((a, b) for a, b, number in steps_of(branched) if number == 2)
    assert branched.arena_bytes <= 1.15 * plan.arena_bytes
    assert asked == [branched.arena_bytes - plan.arena_bytes]
    forced, branched = branches.resolve_branches(plan, True, torch.device("cuda"), asked.append)
    assert [stretch.first for stretch in forced.overlap.stretches] == ["stages.0.0"]
    assert branched.arena_bytes > 1.15 * plan.arena_bytes


def steps_of(made: Plan) -> list[tuple[int, int, int]]:
    """(begin, end, branches) of the steps of every segment."""
    done, found = 0, []
    for segment in made.segments:
        found.append((done, done + len(segment.layers), segment.branches))
        done += len(segment.layers)
    return found


def test_halves_are_as_equal_as_can_be():
    assert halves(6) == [(0, 3), (3, 6)]
    assert halves(5) == [(0, 3), (3, 5)]
    assert halves(2) == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("stretches", "message"),
    [
        ([(0, 4)], "what reads the images comes before two branches, not at step 0"),
        ([(1, 5)], r"must not divide a block, got stages.1.0 cut in two"),
        ([(3, 3)], "ascending runs of the 50 steps"),
        ([(6, 9), (3, 6)], "ascending runs"),
    ],
)
def test_other_stretches_are_refused(stretches, message):
    with pytest.raises(ValueError, match=message):
        two_branch_plan(small(4), stretches)


def test_other_plans_are_refused():
    with pytest.raises(ValueError, match="at least 2 images at a time, got 1 segments and batch 1"):
        two_branch_plan(small(1), [(3, 6)])
    divided = plan_network(small(8).layers, batch=8, dtype=torch.float32, budget_bytes=1 << 16)
    with pytest.raises(ValueError, match="got [0-9]+ segments and batch 8"):
        two_branch_plan(divided, [(3, 6)])
