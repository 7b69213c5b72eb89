"""The forms of a block: which it can take, which an engine takes; each computes the model."""

from __future__ import annotations

import dataclasses
import resource
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.export import Dim

from effnet_fast import InferenceEngine, backends, ops
from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.inference import draft as draft_module
from effnet_fast.inference.block_forms import form_of, possible_forms
from effnet_fast.inference.draft import choose_forms, draft
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.layers import Layer, Value
from effnet_fast.inference.scratch import scratch_bytes
from effnet_fast.models import create_model
from tests.inference.parity import budget
from tests.networks import every_kind_of_block

THREE, FUSED, WHOLE = BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED, BlockForm.WHOLE
CPU = torch.device("cpu")
SIZE = (33, 30)
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"]
)
EVERY_FORM = pytest.mark.parametrize("form", [THREE, FUSED, WHOLE], ids=str)
OPERATORS = {
    THREE: {"depthwise_conv_gate", "pointwise_conv"},
    FUSED: {"depthwise_conv_gate", "expand_depthwise_pool", "squeeze_excite_gate", "pointwise_conv"},
    WHOLE: {"mbconv"},
}


def changed(network: FoldedNetwork, part: str, activation: str) -> FoldedNetwork:
    """`network` with another activation after `part` of its first block."""
    first, *rest = network.blocks
    conv = dataclasses.replace(getattr(first, part), activation=activation)
    return dataclasses.replace(network, blocks=(dataclasses.replace(first, **{part: conv}), *rest))


@pytest.fixture
def network() -> FoldedNetwork:
    """a: all parts; b: neither expansion nor squeeze-excite; c: a FusedMBConv; d: one convolution.

    Projections are linear.
    """
    folded = every_kind_of_block()
    *with_projection, d = folded.blocks
    linear = [
        dataclasses.replace(block, project=dataclasses.replace(block.project, activation="identity"))
        for block in with_projection
    ]
    return dataclasses.replace(folded, blocks=(*linear, d))


def test_possible_forms(network):
    assert [possible_forms(block) for block in network.blocks] == [
        (THREE, FUSED, WHOLE),
        (THREE, WHOLE),
        (THREE, WHOLE),
        (),
    ]
    assert possible_forms(every_kind_of_block().blocks[2]) == (THREE,)  # its projection has an activation


@pytest.mark.parametrize(
    ("part", "activation"), [("expand", "relu"), ("depthwise", "relu"), ("project", "silu")]
)
def test_activations_that_one_operator_does_not_have(network, part, activation):
    odd = changed(network, part, activation)
    assert possible_forms(odd.blocks[0]) == (THREE, FUSED)
    assert form_of(odd.blocks[0], WHOLE) is THREE
    layers = [layer for layer in network_layers(odd, (16, 16), forms=WHOLE) if layer.block in "ab"]
    assert [layer.operator for layer in layers] == [
        "pointwise_conv", "depthwise_conv_gate", "pointwise_conv", "mbconv",
    ]  # fmt: skip


def test_a_layer_of_a_whole_block_has_all_of_it(network):
    whole = [layer for layer in network_layers(network, (15, 16), forms=WHOLE) if layer.operator == "mbconv"]
    first, second = whole
    assert (first.name, first.block, first.x.shape, first.y.shape) == ("a", "a", (4, 8, 8), (4, 8, 8))
    assert (first.kernel, first.stride, first.padding, first.expanded) == (5, 1, (2, 2, 2, 2), 8)
    assert (first.activation, first.expand_activation, first.residual) == ("silu", "silu", first.x)
    assert (first.squeeze, first.se_activation, first.gate_function) == (2, "silu", "sigmoid")
    assert (second.expanded, second.expand_activation, second.squeeze, second.residual) == (4, None, 0, None)
    assert second.reads == (first.y,)


MODELS = {
    "published": {},
    "symmetric hardswish": {"padding": "symmetric", "activation": "hardswish"},
    "no squeeze-excite": {"squeeze_ratio": None, "activation": "relu6"},
}


@DTYPES
@EVERY_FORM
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_an_engine_of_any_form_equals_its_model(tiny_with, take, changes, form, dtype):
    model, x = tiny_with(**changes), torch.randn(4, 3, *SIZE)
    take(form)
    engine = InferenceEngine(model, batch_size=4, image_size=SIZE, dtype=dtype)
    if not changes:
        inner = {layer.operator for layer in engine.plan.layers if layer.block.startswith("stages")}
        assert inner == OPERATORS[form]
    budget(model, x, dtype).assert_within(engine(x))


@DTYPES
@EVERY_FORM
def test_results_of_any_form_depend_on_neither_split_nor_threads(tiny, take, form, dtype, threads):
    take(form)
    images = torch.randn(5, 3, 32, 32)
    options = {"image_size": 32, "dtype": dtype}
    expected = torch.cat([InferenceEngine(tiny, batch_size=1, **options)(image[None]) for image in images])
    for count in (1, 2, 3):
        threads(count)
        for batch_size in (1, 3, 5):
            assert torch.equal(InferenceEngine(tiny, batch_size=batch_size, **options)(images), expected)


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_whole_blocks_are_exported(tiny_with, take, changes):
    take(WHOLE)
    engine = InferenceEngine(tiny_with(**changes), batch_size=3, image_size=32, input="uint8", layout="NHWC")
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=({0: Dim("N")},))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("mbconv_packed" in name for name in called) == 6
    for count in (1, 5):
        assert torch.equal(program.module()(images[:count]), engine(images[:count]))


def test_a_step_of_a_whole_block_is_predicted_and_measured(tiny, take):
    take(WHOLE)
    engine = InferenceEngine(tiny, batch_size=2, image_size=32)
    engine.warmup()
    plan = engine.plan
    blocks = [f"stages.{stage}.{block}" for stage in range(3) for block in range(2)]
    steps = ["stem", *blocks, "head", "classifier"]
    assert list(plan.predictions) == list(plan.measured) == [layer.name for layer in plan.layers] == steps
    for name in blocks:
        line = next(line for line in str(plan).splitlines() if line.strip().startswith(name))
        assert "mbconv" in line
        assert f"whole {plan.layers[1 + blocks.index(name)].expanded}," in line
        assert f"{1e6 * plan.measured[name]:.1f}" in line


def chosen(network: FoldedNetwork, monkeypatch, kernels: set[str], **options):
    """The forms chosen where the CPU backend has kernels for these operators only."""
    have = SimpleNamespace(resolve=backends.resolve, has_kernel=lambda name, backend: name in kernels)
    monkeypatch.setattr(draft_module, "backend_choice", have)
    given = {"batch": 4, "dtype": torch.float32, "image_dtype": torch.float32, "device": CPU, **options}
    return choose_forms(network, (16, 16), **given)


def test_every_block_that_can_is_whole_where_there_is_a_kernel(network, monkeypatch):
    measured = []
    monkeypatch.setattr(draft_module, "measure_ceilings", lambda *args: measured.append(args))
    kernels = {"mbconv_into", "expand_depthwise_into"}
    assert chosen(network, monkeypatch, kernels) == {"a": WHOLE, "b": WHOLE, "c": THREE}
    kernels |= {"fused_mbconv_into"}
    assert chosen(network, monkeypatch, kernels) == {"a": WHOLE, "b": WHOLE, "c": WHOLE}
    assert measured == []  # nothing was left to choose


@pytest.mark.parametrize("fused", [frozenset(), frozenset({"a"})])
def test_the_cost_model_chooses_for_the_others(network, monkeypatch, fused):
    monkeypatch.setattr(draft_module, "measure_ceilings", lambda *args: None)
    monkeypatch.setattr(draft_module, "choose_fused_blocks", lambda *args, **options: fused)
    odd = changed(network, "expand", "relu")
    kernels = {"mbconv_into", "expand_depthwise_into"}
    assert chosen(odd, monkeypatch, kernels) == {"a": FUSED if fused else THREE, "b": WHOLE, "c": THREE}
    assert chosen(network, monkeypatch, kernels - {"mbconv_into"}) == {
        "a": FUSED if fused else THREE,
        "b": THREE,
        "c": THREE,
    }
    assert chosen(odd, monkeypatch, {"mbconv_into"}) == {"a": THREE, "b": WHOLE, "c": THREE}


def test_compositions_and_the_reference_change_nothing(network, monkeypatch):
    three = {"a": THREE, "b": THREE, "c": THREE}
    assert chosen(network, monkeypatch, set()) == three
    kernels = {"mbconv_into", "expand_depthwise_into", "fused_mbconv_into"}
    assert chosen(network, monkeypatch, kernels, backend="reference") == three


def test_an_engine_on_a_cpu_has_whole_blocks(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32, backend="cpu")
    assert sum(layer.operator == "mbconv" for layer in engine.plan.layers) == 6
    assert engine.memory.scratch_bytes > 0


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_scratch_memory_is_what_a_thread_takes(dtype):
    """A block of 8 > 2048 > 8 channels on 100 x 100, in a thread that has no scratch memory yet.

    Above 32 MiB glibc always asks the system for memory, whatever was freed before.
    """
    x, y = Value("x", (8, 100, 100)), Value("y", (8, 100, 100))
    layer = Layer(
        "block", "block", "mbconv", x, y, "silu",
        kernel=3, padding=(1, 1, 1, 1), expanded=2048, expand_activation="silu",
    )  # fmt: skip
    convolutions = torch.randn(2048, 8, 1, 1), torch.randn(2048, 1, 3, 3), torch.randn(8, 2048, 1, 1)
    w_expand, w_dw, w_project = (weight.to(dtype) for weight in convolutions)
    weights = (w_expand, None, w_dw, None, None, None, None, None, w_project)
    packed = ops.pack("mbconv", *weights, activation="silu", backend="cpu")
    run = ops.handle("mbconv", "packed_into", "cpu")

    def call(side: int) -> int:
        given, made = (
            torch.ones(1, 8, side, side).to(dtype, memory_format=torch.channels_last) for _ in range(2)
        )
        before = resident_bytes()
        run(made, given, packed, 2048, 8, 3, 0, 1, (1, 1, 1, 1), "silu", "identity", "sigmoid", False)
        return resident_bytes() - before

    call(8)
    taken = []

    def in_a_thread() -> None:
        torch.set_num_threads(1)
        taken.append(call(100))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    expected = scratch_bytes(layer, 1, dtype, 1)
    assert expected >= 2048 * 100 * 100 * dtype.itemsize > 32 << 20
    assert taken[0] == pytest.approx(expected, rel=0.05)


def test_scratch_memory_grows_with_threads_and_never_with_the_batch_alone(network):
    layer = next(layer for layer in network_layers(network, (64, 64), forms=WHOLE) if layer.name == "a")
    one = 8 * 32 * 32 * 4
    counts = {
        (images, threads): scratch_bytes(layer, images, torch.float32, threads)
        for images in (1, 4, 64)
        for threads in (1, 4)
    }
    assert all(bytes_ >= one for bytes_ in counts.values())
    assert counts[64, 4] >= 4 * one
    assert counts[64, 1] <= 5 * counts[1, 1]
    assert counts[64, 4] <= 4 * counts[64, 1]


def test_other_operators_take_no_scratch_memory(network):
    for layer in network_layers(network, (16, 16), forms=FUSED):
        assert scratch_bytes(layer, 9, torch.float32, 4) == 0


def test_a_plan_counts_the_scratch_of_its_largest_block():
    with torch.device("meta"):
        network = fold(create_model("efficientnet_b0").eval())
    options = {"dtype": torch.bfloat16, "image_dtype": torch.uint8}
    layers = network_layers(network, (224, 224), forms=WHOLE)
    plan = plan_network(layers, batch=16, threads=2, budget_bytes=8 << 20, **options)
    every = {
        layer.name: scratch_bytes(layer, segment.images, torch.bfloat16, 2)
        for segment in plan.segments
        for layer in segment.layers
    }
    assert plan.scratch_bytes == every["stages.1.1"] == max(every.values())
    drafted = draft(network, (224, 224), batch=16, device=CPU, forms=WHOLE, **options)
    planned = drafted.plan(16)
    assert planned.layers == layers
    assert drafted.needed_bytes(16) == planned.arena_bytes + planned.scratch_bytes + drafted.weight_bytes
