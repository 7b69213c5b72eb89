"""FusedMBConv blocks of an engine: one operator each on the CPU, two elsewhere; both compute the model."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from effnet_fast import InferenceEngine, backends, ops
from effnet_fast.backends import Backend
from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.inference.cost import work
from effnet_fast.inference.draft import draft
from effnet_fast.inference.layers import Layer, Value
from effnet_fast.inference.packing import packed_bytes
from effnet_fast.inference.report import plan_table
from effnet_fast.inference.scratch import scratch_bytes
from effnet_fast.models import create_model
from effnet_fast.models.config import MBConvConfig
from effnet_fast.testing import make_args
from tests.inference.parity import budget

THREE, WHOLE = BlockForm.THREE_KERNELS, BlockForm.WHOLE
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"]
)
#: As EfficientNetV2 begins; the second block of each stage adds its input.
STAGES = (
    MBConvConfig(expand=1, kernel=3, stride=1, channels=8, layers=1, kind="conv"),
    MBConvConfig(expand=4, kernel=3, stride=2, channels=16, layers=2, kind="fused"),
    MBConvConfig(expand=3, kernel=5, stride=2, channels=24, layers=2, kind="fused"),
    MBConvConfig(expand=4, kernel=3, stride=1, channels=24, layers=1),
)
FUSED = ["stages.1.0", "stages.1.1", "stages.2.0", "stages.2.1"]
MODELS = {
    "published": {},
    "symmetric hardswish": {"padding": "symmetric", "activation": "hardswish"},
    "relu6": {"activation": "relu6"},
}


@pytest.fixture(scope="module")
def v2_s():
    with torch.device("meta"):
        return fold(create_model("tf_efficientnetv2_s").eval())


@DTYPES
@pytest.mark.parametrize("form", [THREE, WHOLE], ids=str)
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_an_engine_of_either_form_equals_its_model(tiny_with, take, changes, form, dtype):
    model, x = tiny_with(stages=STAGES, **changes), torch.randn(4, 3, 34, 29)
    take(form)
    engine = InferenceEngine(model, batch_size=3, image_size=(34, 29), dtype=dtype)
    operators = {layer.operator for layer in engine.plan.layers if layer.block in FUSED}
    assert operators == ({"fused_mbconv"} if form is WHOLE else {"dense_conv", "pointwise_conv"})
    budget(model, x, dtype).assert_within(engine(x))


@DTYPES
def test_results_depend_on_neither_split_nor_threads(tiny_with, dtype, threads):
    model, images = tiny_with(stages=STAGES), torch.randn(5, 3, 32, 32)
    options = {"image_size": 32, "dtype": dtype}
    expected = torch.cat([InferenceEngine(model, batch_size=1, **options)(image[None]) for image in images])
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(InferenceEngine(model, batch_size=3, **options)(images), expected)


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_float32_is_the_two_operators_to_the_bit(residual):
    assert backends.has_kernel("fused_mbconv_into", Backend.CPU)  # else it is these two operators anyway
    args = make_args("fused_mbconv", n=2, c=24, m=100, o=40, h=19, w=23, k=3, residual=residual)
    x, w_expand, b_expand, w_project, b_project, stride, padding, activation, _ = args
    expanded = ops.dense_conv(x, w_expand, b_expand, stride, padding, activation, backend="cpu")
    both = ops.pointwise_conv(expanded, w_project, b_project, residual=x if residual else None, backend="cpu")
    assert torch.equal(ops.fused_mbconv(*args, backend="cpu"), both)


def test_every_block_is_one_step(tiny_with):
    engine = InferenceEngine(tiny_with(stages=STAGES), batch_size=2, image_size=32, backend="cpu")
    engine.warmup()
    steps = [layer.name for layer in engine.plan.layers if layer.operator == "fused_mbconv"]
    assert steps == FUSED
    for name in steps:
        line = next(line for line in str(engine.plan).splitlines() if line.strip().startswith(name))
        assert f"{1e6 * engine.plan.measured[name]:.1f}" in line
    reference = InferenceEngine(tiny_with(stages=STAGES), batch_size=2, image_size=32, backend="reference")
    assert not any(layer.is_whole_block for layer in reference.plan.layers)


def test_whole_blocks_are_exported(tiny_with, take):
    take(WHOLE)
    engine = InferenceEngine(tiny_with(stages=STAGES), batch_size=3, image_size=32)
    images = torch.randn(5, 3, 32, 32)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=({0: Dim("N")},))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("fused_mbconv_packed" in name for name in called) == 4
    for count in (1, 5):
        assert torch.equal(program.module()(images[:count]), engine(images[:count]))


def test_a_saved_engine_is_the_same(tiny_with, tmp_path):
    engine = InferenceEngine(tiny_with(stages=STAGES), batch_size=2, image_size=32)
    images = torch.randn(2, 3, 32, 32)
    engine.save(tmp_path / "engine")
    assert torch.equal(InferenceEngine.load(tmp_path / "engine")(images), engine(images))


def test_a_layer_of_a_whole_block_has_all_of_it(v2_s):
    layers = {layer.name: layer for layer in network_layers(v2_s, (384, 384), forms=WHOLE)}
    first, second = layers["stages.1.0"], layers["stages.1.1"]
    assert (first.operator, first.x.shape, first.y.shape) == ("fused_mbconv", (24, 192, 192), (48, 96, 96))
    assert (first.kernel, first.stride, first.padding, first.expanded) == (3, 2, (0, 0, 1, 1), 96)
    assert (first.activation, first.expand_activation, first.squeeze, first.residual) == (
        "silu",
        None,
        0,
        None,
    )
    assert (second.residual, second.reads, second.expanded) == (first.y, (first.y, first.y), 192)
    assert second.writes == (second.y,)


def test_work_and_weights_counted_by_hand(v2_s):
    """stages.1.1 of V2-S: 48 > 192 > 48, 3 x 3, on 96 x 96, with a skip; two images in float16."""
    layers = network_layers(v2_s, (384, 384), forms=WHOLE)
    done = work(next(layer for layer in layers if layer.name == "stages.1.1"), 2, torch.float16, torch.uint8)
    pixels = 96 * 96
    assert done.bytes_activations == 2 * 3 * 48 * pixels * 2
    assert done.bytes_weights == (9 * 48 * 192 + 192 * 48) * 2 + (192 + 48) * 4
    assert (done.matrix_macs, done.special) == (2 * (9 * 48 + 48) * 192 * pixels, 2 * 192 * pixels)
    assert (done.fused_macs, done.vector_macs, done.bytes_reread) == (0, 0, 0)
    assert packed_bytes(v2_s, torch.float16, forms=WHOLE) == packed_bytes(v2_s, torch.float16, forms=THREE)


def test_the_expanded_map_of_a_fused_block_is_not_in_the_plan(v2_s):
    options = {"batch": 4, "dtype": torch.bfloat16, "threads": 2, "budget_bytes": 8 << 20}
    plans = {
        form: plan_network(network_layers(v2_s, (384, 384), forms=form), **options) for form in (THREE, WHOLE)
    }
    assert "stages.2.1.expand" in plans[THREE].buffers
    assert not any(name.endswith("expand") for name in plans[WHOLE].buffers)
    assert plans[WHOLE].peak_bytes < plans[THREE].peak_bytes
    table = plan_table(plans[WHOLE])
    line = next(line for line in table.splitlines() if line.strip().startswith("stages.1.1")).split()
    assert line[:9] == ["stages.1.1", "fused_mbconv", "whole", "192,", "3x3", "silu", "+", "x", "48x96x96"]


def test_scratch_memory_is_a_tile_for_each_thread(v2_s):
    """In float32 a row of 96 pixels and the three input rows under it, in both images and for any batch."""
    layers = network_layers(v2_s, (384, 384), forms=WHOLE)
    layer = next(layer for layer in layers if layer.name == "stages.1.1")
    ring, tile = (3 + 1) * (1 + 96 + 1) * 48 * 4, 96 * 192 * 4
    counts = {
        (images, threads): scratch_bytes(layer, images, torch.float32, threads)
        for images in (1, 16)
        for threads in (1, 4)
    }
    assert ring + tile <= counts[1, 1] <= ring + tile + 4096
    assert counts[16, 1] == counts[1, 1]
    assert counts[16, 4] == counts[1, 4] == 4 * counts[1, 1]
    small = Layer(
        "one", "one", "fused_mbconv", Value("x", (8, 3, 3)), Value("y", (8, 3, 3)), "silu", expanded=9
    )
    assert scratch_bytes(small, 2, torch.float32, 64) == 2 * scratch_bytes(small, 1, torch.float32, 1)


def test_a_draft_counts_weights_and_scratch_of_either_form(v2_s):
    options = {"batch": 2, "dtype": torch.float32, "image_dtype": torch.uint8, "device": torch.device("cpu")}
    for form in (THREE, WHOLE):
        drafted = draft(v2_s, (384, 384), forms=form, **options)
        plan = drafted.plan(2)
        needed = plan.arena_bytes + plan.scratch_bytes + packed_bytes(v2_s, torch.float32, forms=form)
        assert drafted.needed_bytes(2) == needed
