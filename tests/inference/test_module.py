"""`engine.as_module()` in eager PyTorch: the engine's results, and what such a module refuses."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from effnet_fast import InferenceEngine
from effnet_fast.backends import Backend
from effnet_fast.inference import BlockForm, fold, network_layers
from effnet_fast.inference.inputs import ImageSpec
from effnet_fast.inference.module import FusedNetwork
from effnet_fast.inference.packing import pack_network
from effnet_fast.inference.planner import plan_network
from effnet_fast.measure.memory import peak_allocated_bytes
from effnet_fast.models.config import MBConvConfig

SIZE = 32
INPUTS = pytest.mark.parametrize(("kind", "layout"), [("float", "NCHW"), ("uint8", "NHWC")])
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"]
)


def make(model, **options) -> InferenceEngine:
    return InferenceEngine(model, **{"batch_size": 4, "image_size": SIZE, **options})


def make_images(count: int, kind: str = "float", layout: str = "NCHW") -> torch.Tensor:
    images = torch.randn(count, 3, SIZE, SIZE)
    if kind == "uint8":
        images = (images * 50 + 128).clamp(0, 255).byte()
    return images.permute(0, 2, 3, 1).contiguous() if layout == "NHWC" else images


@INPUTS
@DTYPES
def test_results_are_the_engines(tiny, dtype, kind, layout):
    engine = make(tiny, dtype=dtype, input=kind, layout=layout)
    network, images = engine.as_module(), make_images(9, kind, layout)
    for count in (0, 1, 3, 9):
        logits = network(images[:count])
        assert logits.dtype == torch.float32
        assert torch.equal(logits, engine(images[:count]))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(network(images), engine(images))


@INPUTS
def test_results_of_the_reference(tiny, kind, layout):
    engine = make(tiny, backend="reference", input=kind, layout=layout)
    images = make_images(9, kind, layout)
    torch.testing.assert_close(engine.as_module()(images), engine(images), rtol=1e-5, atol=1e-5)


_OTHER_BLOCKS = {
    "no squeeze-excite": {"squeeze_ratio": None, "activation": "relu6"},
    "fused and conv": {
        "stages": (
            MBConvConfig(expand=1, kernel=3, stride=1, channels=8, layers=2, kind="conv"),
            MBConvConfig(expand=4, kernel=3, stride=2, channels=16, layers=2, kind="fused"),
            MBConvConfig(expand=4, kernel=5, stride=2, channels=24, layers=2),
        )
    },
}


@pytest.mark.parametrize("changes", _OTHER_BLOCKS.values(), ids=_OTHER_BLOCKS)
def test_other_blocks(tiny_with, changes):
    engine, images = make(tiny_with(**changes)), make_images(3)
    assert torch.equal(engine.as_module()(images), engine(images))


@pytest.mark.parametrize("backend", [Backend.CPU, Backend.REFERENCE])
@pytest.mark.parametrize("form", BlockForm)
def test_any_form_of_a_block(tiny, form, backend):
    """The engine takes one of them; each is a network of its own operators."""
    folded, images = fold(tiny), make_images(3)
    layers = network_layers(folded, (SIZE, SIZE), forms=form)
    backends = dict.fromkeys((layer.operator for layer in layers), backend)
    device = torch.device("cpu")
    weights = pack_network(folded, backends, torch.float32, device, forms=form)
    spec = ImageSpec(3, SIZE, SIZE, "float", "NCHW", torch.float32, device)
    network = FusedNetwork(layers, weights, backends, (None, None), spec=spec)
    with torch.no_grad():
        torch.testing.assert_close(network(images), tiny(images), rtol=1e-4, atol=1e-4)


def test_it_holds_the_engines_own_weights(tiny):
    engine = make(tiny)
    held = sum(buffer.numel() * buffer.element_size() for buffer in engine.as_module().buffers())
    assert held == engine.memory.weight_bytes
    assert peak_allocated_bytes(engine.as_module) == 0


def test_maps_are_freed_when_they_are_read(tiny):
    engine, images = make(tiny), make_images(9)
    network = engine.as_module()
    with torch.inference_mode():
        network(images)
        peak = peak_allocated_bytes(lambda: network(images))
    # The allocator rounds to 64 bytes, as the plan's offsets are.
    plan = plan_network(engine.plan.layers, batch=9, dtype=engine.dtype)
    assert peak <= 1.01 * plan.peak_bytes


def test_images_that_do_not_fit_are_refused_as_by_the_engine(tiny):
    engine = make(tiny)
    for images in (torch.zeros(2, 3, SIZE, SIZE + 1), torch.zeros(2, 3, SIZE, SIZE).double(), [1.0]):
        with pytest.raises((TypeError, ValueError)) as from_engine:
            engine(images)
        with pytest.raises(from_engine.type) as from_network:
            engine.as_module()(images)
        assert str(from_network.value) == str(from_engine.value)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradients_are_refused(tiny, backend):
    network = make(tiny, backend=backend).as_module()
    images = make_images(2).requires_grad_()
    with pytest.raises(RuntimeError, match=r"computes no gradients.*images\.detach\(\)"):
        network(images)
    assert not network(images.detach()).requires_grad
    with torch.no_grad():
        assert not network(images).requires_grad


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.half(),
        lambda network: network.double(),
        lambda network: network.to(torch.bfloat16),
        lambda network: network.to("meta"),
        lambda network: network.to_empty(device="cpu"),
        lambda network: nn.Sequential(network).half(),
    ],
    ids=["half", "double", "bfloat16", "meta", "to_empty", "nested"],
)
def test_it_is_neither_moved_nor_converted(tiny, change):
    engine = make(tiny)
    network, images = engine.as_module(), make_images(2)
    with pytest.raises(RuntimeError, match="packed for torch.float32 on cpu. Make an InferenceEngine"):
        change(network)
    assert torch.equal(network(images), engine(images))


def test_what_changes_nothing_is_allowed(tiny):
    engine = make(tiny, dtype=torch.bfloat16, input="uint8")
    network, images = engine.as_module(), make_images(2, "uint8")
    same = network.to("cpu").bfloat16().to(memory_format=torch.channels_last).train().eval().share_memory()
    assert same is network
    assert torch.equal(network(images), engine(images))


def test_it_has_no_state(tiny):
    network = make(tiny, input="uint8").as_module()
    assert network.state_dict() == {}
    assert list(network.parameters()) == []
    network.load_state_dict({})
    around = nn.Sequential(nn.Linear(2, 2), network)
    around.load_state_dict(around.state_dict())
    for target, given in ((network, tiny.state_dict()), (around, {**around.state_dict(), "1.mean": 0})):
        for strict in (True, False):
            with pytest.raises(RuntimeError, match="FusedNetwork has no state_dict and loads none, got"):
                target.load_state_dict(given, strict=strict)


def test_deepcopy(tiny):
    engine = make(tiny)
    network, images = engine.as_module(), make_images(2)
    copied = copy.deepcopy(network)
    for buffer in network.buffers():
        buffer.zero_()
    assert torch.equal(copied(images), make(tiny)(images))


_LOAD = """
import sys, torch
network, images, logits = torch.load(sys.argv[1], weights_only=False)
assert torch.equal(network(images), logits)
"""


def test_pickles_are_loaded_in_a_fresh_process(tiny, tmp_path):
    engine, images = make(tiny), make_images(3)
    assert torch.equal(pickle.loads(pickle.dumps(engine.as_module()))(images), engine(images))
    torch.save((engine.as_module(), images, engine(images)), tmp_path / "network.pth")
    command = [sys.executable, "-c", _LOAD, str(tmp_path / "network.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_its_text_says_what_it_takes(tiny):
    text = repr(make(tiny, input="uint8", layout="NHWC").as_module())
    for part in ("FusedNetwork(", "image_size=(32, 32)", "dtype=torch.float32", "'uint8'", "'NHWC'"):
        assert part in text
