"""Stem and first block computed together: the layers, an engine of them, its graphs, and who decides."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from effnet_fast import InferenceEngine, backends
from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.inference import draft as draft_module
from effnet_fast.inference.block_forms import starts_with_stem_block
from effnet_fast.inference.cost import work
from effnet_fast.inference.draft import choose_forms
from effnet_fast.inference.gpu_cost import predict_on_gpu
from effnet_fast.inference.graphs import CapturedProgram
from effnet_fast.inference.packing import layer_weights
from effnet_fast.inference.stem_form import choose_stem_form, has_stem_kernel
from effnet_fast.measure.chips import find_chip
from effnet_fast.measure.gpu_rates import nominal_rates
from tests.inference.gpu_networks import folded
from tests.inference.parity import budget
from tests.inference.test_graphs import fake_cuda, recorded  # noqa: F401 (a fixture)
from tests.networks import make_tiny

WITH_STEM, HALF = BlockForm.WITH_STEM, torch.float16
SIZE = (33, 30)
MODELS = {
    "squeeze-excite": {},
    "symmetric hardswish": {"padding": "symmetric", "activation": "hardswish"},
    "no squeeze-excite": {"squeeze_ratio": None, "activation": "relu6"},
}
EVERY_MODEL = pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)


@pytest.fixture
def together(monkeypatch):
    """Engines whose stem and first block are computed together, on any device."""
    monkeypatch.setattr(draft_module, "choose_forms", lambda *args, **options: WITH_STEM)


def tiny(**changes):
    return make_tiny(stem_channels=16, **changes)  # whose first block has 8, and so adds no input


def test_layers_of_b0():
    network = folded("efficientnet_b0")
    layers = network_layers(network, (224, 224), forms=WITH_STEM)
    first, gates, second, third = layers[:4]
    assert [layer.operator for layer in (first, gates, second)] == [
        "stem_block_sums", "squeeze_excite_gate", "stem_block",
    ]  # fmt: skip
    assert {layer.block for layer in (first, gates, second)} == {"stages.0.0"}
    assert (first.x, second.x) == (layers[0].x, layers[0].x)
    assert (first.y.shape, gates.y.shape, second.y.shape) == ((32, 49, 1), (32, 1, 1), (16, 112, 112))
    assert first.y.single
    assert second.gate == gates.y
    assert gates.count == 112 * 112
    assert third.operator == "pointwise_conv"
    assert third.x == second.y
    # What is there otherwise is the same but for the first layers.
    assert layers[4:] == network_layers(network, (224, 224))[4:]
    assert {layer.name for layer in layers} == {w.name for w in layer_weights(network, forms=WITH_STEM)}
    plans = [
        plan_network(network_layers(network, (224, 224), forms=form), batch=1, dtype=HALF)
        for form in (BlockForm.THREE_KERNELS, WITH_STEM)
    ]
    saved = [sum(plan.step_bytes(layer) for layer in plan.layers) for plan in plans]
    # Stem and depthwise output, written and read; but the image is read once more, and so are the sums.
    assert saved[0] - saved[1] == pytest.approx(8 * 32 * 112 * 112 - 2 * 3 * 224 * 224, rel=0.01)


def test_what_is_computed_twice_is_counted_twice():
    network = folded("efficientnet_b0")
    done = {
        layer.operator: work(layer, 2, HALF, torch.uint8)
        for layer in network_layers(network, (224, 224), forms=WITH_STEM)
        if layer.block == "stages.0.0"
    }
    values = 2 * 32 * 112 * 112
    sums, block = done["stem_block_sums"], done["stem_block"]
    assert (sums.matrix_macs, sums.vector_macs, sums.special) == (27 * values, 9 * values, 2 * values)
    assert (block.matrix_macs, block.vector_macs, block.special) == (43 * values, 9 * values, 2 * values)
    assert sums.bytes_weights == 2 * 36 * 32 + 4 * 64
    assert block.bytes_weights == 2 * (36 * 32 + 32 * 16) + 4 * 80


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "efficientnet_b7", "tf_efficientnet_lite0", "mobilenetv2_100"]
)
def test_networks_that_can(name):
    network = folded(name)
    assert starts_with_stem_block(network, WITH_STEM)
    assert starts_with_stem_block(network, {network.blocks[0].name: WITH_STEM})
    assert not starts_with_stem_block(network, {network.blocks[1].name: WITH_STEM})
    assert not starts_with_stem_block(network, BlockForm.WHOLE)
    assert has_stem_kernel(network, HALF)
    assert not has_stem_kernel(network, torch.float32)


@pytest.mark.parametrize(
    "make", [lambda: fold(make_tiny()), lambda: folded("efficientnetv2_s")], ids=["residual", "v2"]
)
def test_networks_that_cannot_take_their_other_form(make):
    network = make()
    assert not has_stem_kernel(network, HALF)
    assert network_layers(network, (64, 64), forms=WITH_STEM) == network_layers(network, (64, 64))


@EVERY_MODEL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"])
def test_an_engine_equals_its_model(together, changes, dtype):
    model, x = tiny(**changes), torch.randn(5, 3, *SIZE)
    engine = InferenceEngine(model, batch_size=4, image_size=SIZE, dtype=dtype)
    assert "stem_block" in engine.backends
    assert "stem_conv" not in engine.backends
    budget(model, x, dtype).assert_within(engine(x))


def test_it_gives_the_bits_of_an_engine_of_three_kernels(monkeypatch):
    # On a CPU both are the same kernels, in the same order.
    model, images = tiny(), torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    engines = []
    for form in (BlockForm.THREE_KERNELS, WITH_STEM):
        monkeypatch.setattr(draft_module, "choose_forms", lambda *args, form=form, **options: form)
        engines.append(InferenceEngine(model, batch_size=2, image_size=32, input="uint8", layout="NHWC"))
    first, second = (engine(images) for engine in engines)
    assert torch.equal(first, second)


def test_every_step_is_timed(together):
    engine = InferenceEngine(tiny(), batch_size=2, image_size=32)
    engine.warmup()
    assert list(engine.plan.measured) == [layer.name for layer in engine.plan.layers]
    assert "stem_block_sums" in str(engine.plan)


@pytest.fixture
def engine(together, changes):
    return InferenceEngine(tiny(**changes), batch_size=6, image_size=32)


@EVERY_MODEL
def test_a_graph_has_what_comes_behind_the_images(engine, fake_cuda, changes):  # noqa: F811
    images = torch.randn(6, 3, 32, 32)
    expected = engine(images)
    program = engine._runner.program(6)
    outside = 1 if "squeeze_ratio" in changes else 3
    with torch.inference_mode():
        captured = CapturedProgram(recorded(program), torch.zeros(6, 3, 32, 32))
        assert len(captured._graph.calls) == len(engine.plan.layers) - outside
        for count in (6, 1, 4, 5):
            program.output.fill_(float("nan"))
            assert torch.equal(captured.run(images[:count]), expected[:count])


def test_it_is_exported(together):
    engine = InferenceEngine(tiny(), batch_size=3, image_size=32, input="uint8", layout="NHWC")
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=({0: Dim("N")},))
    for count in (1, 5):
        assert torch.equal(program.module()(images[:count]), engine(images[:count]))


def test_a_cpu_never_chooses_it():
    network = fold(tiny())
    forms = choose_forms(
        network, (64, 64), batch=64, dtype=torch.bfloat16, image_dtype=torch.uint8, device=torch.device("cpu")
    )
    assert WITH_STEM not in forms.values()
    assert not backends.has_kernel("stem_block_into", backends.Backend.CPU)


def test_the_choice_is_what_the_prediction_says():
    network, rates = folded("efficientnet_b0"), nominal_rates(find_chip("h200"))
    shapes = dict(dtype=HALF, image_dtype=torch.uint8, rates=rates)
    choice = choose_stem_form(network, (224, 224), images=256, **shapes)
    apart, both = (choice.predicted[form] for form in (BlockForm.THREE_KERNELS, WITH_STEM))
    assert choice.together == (1.25 * both.seconds < apart.seconds)
    # Each is all that its layers take, stem included, one after the other.
    for form, kernels, predicted in ((BlockForm.THREE_KERNELS, 3, apart), (WITH_STEM, 3, both)):
        layers = network_layers(network, (224, 224), forms=form)[:kernels]
        each = [predict_on_gpu(layer, 256, HALF, torch.uint8, rates).seconds for layer in layers]
        assert predicted.seconds == pytest.approx(sum(each))
    # A memory so fast that nothing is saved, or so slow that nothing else counts.
    for factor, together in ((100.0, False), (0.05, True)):
        other = rates.__class__(**{**vars(rates), "memory_bytes": factor * rates.memory_bytes,
                                   "cache_bytes": max(factor, 1.0) * rates.cache_bytes})  # fmt: skip
        assert (
            choose_stem_form(network, (224, 224), images=256, **{**shapes, "rates": other}).together
            == together
        )
    nothing = choose_stem_form(folded("efficientnetv2_s"), (384, 384), images=8, **shapes)
    assert (nothing.together, nothing.predicted) == (False, {})
