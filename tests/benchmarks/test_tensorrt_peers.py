"""TensorRT and Torch-TensorRT as peers, with stand-ins for their packages; cuDNN settings."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.peers import PEERS, PeerUnavailable, cudnn_settings, tensorrt_engine
from benchmarks.peers.cudnn_settings import without_cudnn
from effnet_fast.nn import MBConv
from tests.benchmarks.test_peers import FakeCuda

SIZES = {torch.float32: 4, torch.float16: 2}


class FakeTensorRT:
    """What the peer uses of the package `tensorrt`: an engine that writes where its addresses say."""

    __version__ = "10.12.0"
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    BuilderFlag = SimpleNamespace(TF32="TF32")

    def __init__(self, *, reads: bool = True, builds: bool = True):
        self.reads, self.builds = reads, builds
        self.flags = {"TF32"}
        self.addresses: dict[str, int] = {}
        self.streams: list[object] = []
        self.num_errors = 1

    def Logger(self, level):
        return SimpleNamespace()

    Logger.ERROR = "error"

    def Builder(self, logger):
        return self

    def create_network(self, flags):
        assert flags == 1 << self.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return self

    def OnnxParser(self, network, logger):
        assert network is self
        return self

    def parse_from_file(self, path):
        return self.reads

    def get_error(self, index):
        return SimpleNamespace(desc=lambda: "no such operator")

    def create_builder_config(self):
        return SimpleNamespace(clear_flag=self.flags.remove)

    def build_serialized_network(self, network, config):
        return SimpleNamespace(nbytes=3 << 20) if self.builds else None

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self)

    def export(self, model, images, path):
        self.model, self.dtype, self.shape = model, images.dtype, images.shape

    def get_tensor_shape(self, name):
        assert name == "logits"
        return (self.shape[0], 5)

    def create_execution_context(self):
        return self

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        self.streams.append(stream)
        images = self._at("images", self.shape)
        self._at("logits", (self.shape[0], 5)).copy_(self.model(images))
        return True

    def _at(self, name, shape):
        count = torch.Size(shape).numel()
        memory = (ctypes.c_char * (count * SIZES[self.dtype])).from_address(self.addresses[name])
        return torch.frombuffer(memory, dtype=self.dtype).view(shape)


@pytest.fixture
def tensorrt(monkeypatch):
    def install(**options) -> FakeTensorRT:
        fake = FakeTensorRT(**options)
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        monkeypatch.setattr(tensorrt_engine, "export_onnx", fake.export)
        return fake

    return install


class Cuda(FakeCuda):
    def current_stream(self):
        stream = super().current_stream()
        stream.cuda_stream = 77
        return stream


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).requires_grad_(False)


@pytest.mark.parametrize("dtype", SIZES, ids=str)
def test_tensorrt_is_strongly_typed_without_tf32_and_captured_on_pytorchs_stream(tensorrt, dtype):
    fake, cuda, images = tensorrt(), Cuda(), torch.randn(3, 3, 2, 2)
    prepared = tensorrt_engine.prepare(linear(), images, dtype, cuda)
    torch.testing.assert_close(prepared.call(), linear().to(dtype)(images.to(dtype)))
    assert fake.dtype == dtype
    assert fake.flags == set()
    assert set(fake.streams) == {77}
    assert cuda.log[-1] == "capture"
    runs = len(fake.streams)
    prepared.call()
    assert len(fake.streams) == runs  # a replay
    assert prepared.details == {"tensorrt": "10.12.0", "mib": 3.0}
    assert prepared.own_bytes is None


@pytest.mark.parametrize(
    ("options", "words"),
    [({"reads": False}, "cannot read the network: no such operator"), ({"builds": False}, "cannot build")],
)
def test_a_network_that_tensorrt_refuses_is_unavailable(tensorrt, options, words):
    tensorrt(**options)
    with pytest.raises(PeerUnavailable, match=f"^TensorRT 10.12.0 {words}"):
        tensorrt_engine.prepare(linear(), torch.randn(1, 3, 2, 2), torch.float32, Cuda())


def test_torch_tensorrt_compiles_the_whole_network_in_its_own_dtypes(monkeypatch):
    asked = {}

    def compile_(program, **options):
        asked.update(options)
        return program.module()

    package = SimpleNamespace(__version__="2.8.0", dynamo=SimpleNamespace(compile=compile_))
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    images = torch.randn(2, 3, 2, 2)
    prepared = PEERS["torch-tensorrt"].prepare(linear(), images, torch.bfloat16)
    expected = linear().bfloat16()(images.bfloat16())
    torch.testing.assert_close(prepared.call(), expected)
    assert asked["arg_inputs"][0].dtype == torch.bfloat16
    assert asked["disable_tf32"]
    assert asked["require_full_compilation"]
    assert asked["use_explicit_typing"]
    assert prepared.details == {"torch_tensorrt": "2.8.0"}


@pytest.mark.parametrize(
    ("name", "package"), [("tensorrt", "tensorrt"), ("torch-tensorrt", "torch_tensorrt"), ("jax", "jax")]
)
def test_without_their_packages_they_say_so(monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda of: None if of == package else SimpleNamespace())
    assert PEERS[name].unavailable("cuda", "efficientnet_b0").startswith(f"not installed: {package} (")
    monkeypatch.setattr(importlib.util, "find_spec", lambda of: SimpleNamespace())
    assert PEERS[name].unavailable("cuda", "efficientnet_b0") == ""
    assert bool(PEERS[name].unavailable("cpu", "efficientnet_b0")) == (name != "jax")


class FakeCudnn:
    """`torch.backends.cudnn` as far as the peers use it; `off` counts the calls made while it is off."""

    def __init__(self):
        self.enabled, self.log = True, []

    @contextlib.contextmanager
    def flags(self, *, enabled, allow_tf32):
        assert not allow_tf32  # flags() would allow it by default
        before, self.enabled = self.enabled, enabled
        yield
        self.enabled = before


def test_cudnn_is_off_for_depthwise_convolutions_alone():
    torch.manual_seed(0)
    block, x, cudnn = (
        MBConv(8, 8, expanded_channels=32, squeeze_channels=2).eval(),
        torch.randn(2, 8, 9, 9),
        FakeCudnn(),
    )
    expected = block(x)
    seen = {}
    for name, module in block.named_modules():
        if isinstance(module, nn.Conv2d):
            note = lambda module, given, name=name: seen.update({name: cudnn.enabled})  # noqa: E731
            module.register_forward_pre_hook(note)
    assert without_cudnn(block, cudnn) == 1
    torch.testing.assert_close(block(x), expected, rtol=0, atol=0)
    assert cudnn.enabled
    assert {name for name, enabled in seen.items() if not enabled} == {"depthwise.conv"}
    assert len(seen) == 5


def test_the_peers_of_cudnn_fold_batch_norms_and_compute_the_network(monkeypatch, b0):
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected = b0(images)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    for peer, details in (
        (cudnn_settings.HEURISTICS, {"folded": 49}),
        (cudnn_settings.NATIVE, {"depthwise": 16}),
    ):
        prepared = peer.prepare(copy.deepcopy(b0), images, torch.float32)
        assert prepared.details == details
        torch.testing.assert_close(prepared.call(), expected, rtol=1e-3, atol=1e-4)
        assert (peer.devices, peer.group) == (("cuda",), "eager")
    assert not torch.backends.cudnn.benchmark
