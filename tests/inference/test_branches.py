"""Two halves of a batch as two branches of a graph: the same bits in every order, and no races."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from effnet_fast import InferenceEngine
from effnet_fast.inference import BlockForm, EngineMemoryError, branches, engine, runner
from effnet_fast.inference.overlap import Overlap, Stretch, every_block
from tests.inference.fake_graphs import install

FORMS = [BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED, BlockForm.WHOLE]


@pytest.fixture
def cuda(monkeypatch):
    return install(monkeypatch)


@pytest.fixture
def chosen(monkeypatch):
    """What "auto" chooses, as if a GPU's ceilings said so: all blocks but the first two, in two stretches."""

    def choose(layers, batch, predicted, skip: int = 0) -> Overlap:
        assert not skip
        (whole,) = every_block(layers).stretches
        blocks = list(dict.fromkeys(layer.block for layer in layers[whole.begin : whole.end]))

        def stretch(first: str, last: str) -> Stretch:
            steps = [n for n, layer in enumerate(layers) if layer.block in (first, last)]
            return Stretch(steps[0], steps[-1] + 1, first, last, one=2e-3, two=1.5e-3)

        return Overlap((stretch(blocks[2], blocks[3]), stretch(blocks[4], blocks[5])))

    monkeypatch.setattr(branches, "choose_overlap", choose)
    monkeypatch.setattr(branches, "measured_rates", lambda device, dtype: None)


def captured(made: InferenceEngine, bucket: int):
    with torch.inference_mode():
        return made._runner.captured(bucket)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("batch", [6, 5, 2])
def test_every_order_gives_the_bits_of_one_branch(tiny, cuda, take, form, batch):
    take(form)
    straight = InferenceEngine(tiny, batch_size=batch, image_size=32, overlap=False)
    branched = InferenceEngine(tiny, batch_size=batch, image_size=32, overlap=True)
    images = torch.randn(2 * batch + 1, 3, 32, 32)
    expected = straight(images)
    for _ in range(8):
        # What a branch reads too early is not what an earlier call left there.
        branched._runner.arena.fill_(255)
        assert torch.equal(branched(images), expected)
    for count in range(1, batch + 1):
        branched._runner.arena.fill_(255)
        assert torch.equal(branched(images[:count]), expected[:count])
    graph = captured(branched, batch)._graph
    graph.assert_no_race()
    assert graph.replays >= 16


def test_a_branch_keeps_its_order_and_the_second_stays_a_kernel_behind(tiny, cuda, take):
    take(BlockForm.EXPANSION_FUSED)
    made = InferenceEngine(tiny, batch_size=5, image_size=32, overlap=True)
    graph = captured(made, 5)._graph
    first, second = graph.streams
    inside = [node for node in graph.nodes if node.stream is second]
    (stretch,) = made.plan.overlap.stretches
    layers = made.plan.layers[stretch.begin : stretch.end]
    assert len(inside) == len(layers)
    # The stem is in no graph: step n of the first half is the node before it.
    beside = [node for node in graph.nodes if node.stream is first][stretch.begin - 1 :][: len(layers)]
    for number, (one, other) in enumerate(zip(beside, inside, strict=True)):
        for node in (one, other):
            assert any(argument is made._weights[layers[number].name] for argument in node.arguments)
        assert (one.arguments[0].shape[0], other.arguments[0].shape[0]) == (3, 2)
        assert set(inside[:number]) <= other.before
        assert set(beside[:number]) <= one.before
        assert not set(inside) & one.before, "halves meet"
    # It waits for the first kernel of the other half, and for nothing after.
    assert all(set(beside) & node.before == {beside[0]} for node in inside)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("fault", ["shared", "halfway"])
def test_halves_in_one_memory_are_seen(tiny, cuda, take, monkeypatch, form, fault):
    take(form)
    plan_of = branches.two_branch_plan

    def broken(plan, stretches):
        made = plan_of(plan, stretches)

        def moved(buffer):
            if buffer.second is None:
                return buffer
            away = 0 if fault == "shared" else (buffer.second - buffer.offset) // 128 * 64
            return dataclasses.replace(buffer, second=buffer.offset + away)

        return dataclasses.replace(made, buffers={name: moved(b) for name, b in made.buffers.items()})

    monkeypatch.setattr(branches, "two_branch_plan", broken)
    made = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)
    with pytest.raises(AssertionError, match="race"):
        captured(made, 6)._graph.assert_no_race()


def test_a_missing_fork_is_seen(tiny, cuda):
    cuda.deaf = "fork"
    made = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)
    with pytest.raises(AssertionError, match="a kernel that no replay will run"):
        captured(made, 6)


def test_a_missing_join_is_seen(tiny, cuda):
    cuda.deaf = "join"
    made = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)
    with pytest.raises(RuntimeError, match="unjoined"):
        captured(made, 6)


def test_without_a_graph_there_is_one_branch(tiny, cuda):
    made = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)
    assert not any(step.beside for count in range(1, 7) for step in made._runner.program(count).passes)
    assert len(captured(made, 1)._graph.streams) == 1
    alone = InferenceEngine(tiny, batch_size=1, image_size=32)
    assert alone._runner.plans == (alone._plan,)


def test_auto_has_one_branch_until_it_is_measured(tiny, cuda, chosen):
    made = InferenceEngine(tiny, batch_size=6, image_size=32)
    assert made.plan.overlap.graphs is None
    assert len(captured(made, 6)._graph.streams) == 1
    assert "two branches: off until warmup() measures them" in str(made.plan)


def test_what_is_forced_is_not_measured(tiny, cuda, monkeypatch):
    monkeypatch.setattr(runner.Runner, "_seconds", lambda self, run, count: 1e-3)
    made = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)
    assert made.plan.overlap.graphs == (2, 4, 6)
    made.warmup()
    assert made.plan.overlap.graphs == (2, 4, 6)
    assert [len(captured(made, bucket)._graph.streams) for bucket in (1, 2, 4, 6)] == [1, 2, 2, 2]
    assert "two branches: in graphs of 2, 4, 6 images" in str(made.plan)


def test_warmup_keeps_the_faster_of_both(tiny, cuda, chosen, monkeypatch):
    # Kernel by kernel nothing is faster; two branches are so for 6 images, hardly for 4, and not for 2.
    two = {6: 0.8e-3, 4: 0.99e-3, 2: 1.2e-3}

    def seconds(self, run, count: int) -> float:
        graph = getattr(run.__self__, "_graph", None)
        return 1.0 if graph is None else two[count] if len(graph.streams) > 1 else 1e-3

    monkeypatch.setattr(runner.Runner, "_seconds", seconds)
    made = InferenceEngine(tiny, batch_size=6, image_size=32)
    images = torch.randn(6, 3, 32, 32)
    expected = made(images)
    for _ in range(2):  # a second warm-up measures the buckets alone
        made.warmup()
        assert made.plan.overlap.graphs == (6,)
        assert [len(captured(made, bucket)._graph.streams) for bucket in (1, 2, 4, 6)] == [1, 1, 1, 3]
    graph = captured(made, 6)._graph
    graph.assert_no_race()
    for count in (6, 5, 3, 1):
        assert torch.equal(made(images[:count]), expected[:count])
    assert graph.replays == 2
    assert "two branches: in graphs of 6 images" in str(made.plan)


def test_warmup_goes_on_where_two_branches_cannot_be_captured(tiny, cuda, chosen, monkeypatch, caplog):
    monkeypatch.setattr(runner.Runner, "_seconds", lambda self, run, count: 1e-3)
    cuda.deaf = "join"
    made = InferenceEngine(tiny, batch_size=4, image_size=32)
    with caplog.at_level(logging.WARNING, "effnet_fast"):
        made.warmup()
    assert (
        "two branches in a graph of 4 images: capturing stream has unjoined work; it has one" in caplog.text
    )
    assert made.plan.overlap.graphs == ()
    assert "two branches: off: capturing stream has unjoined work" in str(made.plan)
    images = torch.randn(4, 3, 32, 32)
    plain = InferenceEngine(tiny, batch_size=4, image_size=32, overlap=False)
    assert torch.equal(made(images), plain(images))


def test_memory_counts_both_plans(tiny, cuda):
    plain = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=False).memory
    made = InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)
    one, two = made._runner.plans
    assert (plain.arena_bytes, plain.peak_bytes) == (one.arena_bytes, one.peak_bytes)
    assert made.memory.arena_bytes == made._runner.arena.numel() == max(one.arena_bytes, two.arena_bytes)
    assert made.memory.peak_bytes == max(one.peak_bytes, two.peak_bytes)


def test_branches_that_do_not_fit_are_left_out_or_refused(tiny, cuda, chosen, monkeypatch):
    def require(needed, batch, device, what) -> None:
        asked.append(needed(batch))
        if asked[-1] > asked[0]:  # what one branch takes is all that there is
            raise EngineMemoryError(f"{asked[-1] - asked[0]} bytes are not there")

    plan_of = branches.two_branch_plan

    def larger(plan, stretches):
        return dataclasses.replace(plan_of(plan, stretches), arena_bytes=plan.arena_bytes + 4096)

    monkeypatch.setattr(branches, "two_branch_plan", larger)
    monkeypatch.setattr(engine, "require", require)
    asked = []
    made = InferenceEngine(tiny, batch_size=6, image_size=32)
    assert made._runner.plans == (made._plan,)
    assert "two branches: off: 4096 bytes are not there" in str(made._plan)
    asked = []
    with pytest.raises(EngineMemoryError, match="4096 bytes"):
        InferenceEngine(tiny, batch_size=6, image_size=32, overlap=True)


def test_copies_and_files_keep_what_was_asked(tiny, cuda, tmp_path):
    made = InferenceEngine(tiny, batch_size=4, image_size=32, overlap=True)
    state = made.__getstate__()
    assert state["overlap"] is True
    made.save(tmp_path / "tiny.safetensors")
    loaded = InferenceEngine.load(tmp_path / "tiny.safetensors", overlap=True)
    assert loaded.plan.overlap.stretches == made.plan.overlap.stretches
    assert InferenceEngine.load(tmp_path / "tiny.safetensors", overlap=False).plan.overlap is None


def test_what_cannot_be_had_is_refused(tiny):
    # This one on the CPU as it is, where nothing is captured.
    assert InferenceEngine(tiny, batch_size=2, image_size=32).plan.overlap is None
    with pytest.raises(RuntimeError, match="overlap=True needs CUDA graphs, whose branches it makes"):
        InferenceEngine(tiny, batch_size=2, image_size=32, overlap=True)
    with pytest.raises(ValueError, match='overlap must be "auto", True or False, got 2'):
        InferenceEngine(tiny, batch_size=2, image_size=32, overlap=2)


def test_one_image_cannot_be_divided(tiny, cuda):
    with pytest.raises(ValueError, match="overlap=True needs a batch_size of at least 2, got 1"):
        InferenceEngine(tiny, batch_size=1, image_size=32, overlap=True)


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [6, 5])
def test_branches_on_a_gpu(tiny, batch):
    images = torch.randn(2 * batch, 3, 32, 32, device="cuda")
    expected = InferenceEngine(tiny, batch_size=batch, image_size=32, device="cuda", overlap=False)(images)
    made = InferenceEngine(tiny, batch_size=batch, image_size=32, device="cuda", overlap=True)
    first = made(images)
    # Kernels may take other tiles for half the images, and add in another order; never from call to call.
    assert (first - expected).abs().max() <= 1e-2 * expected.abs().max()
    for _ in range(50):
        assert torch.equal(made(images), first)
