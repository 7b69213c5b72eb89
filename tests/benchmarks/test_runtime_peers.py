"""ONNX Runtime and OpenVINO as peers: with their packages, and what is shown without them."""

from __future__ import annotations

import copy
import importlib.util
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from benchmarks import tables
from benchmarks.cases import Case
from benchmarks.peers import PEERS, PeerUnavailable, onnx_runtime, openvino_runtime
from benchmarks.peers.onnx_export import export_onnx
from benchmarks.process import PeerError, PeerProcess
from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.runner import Job, Runner, Settings
from benchmarks.subject import distinct_images, make_oracle, rows_of_batch
from effnet_fast.measure import judge_logits
from effnet_fast.nn import MBConv

RUNTIMES = {"onnxruntime": "onnxruntime", "openvino-latency": "openvino", "openvino-throughput": "openvino"}
SIZE = 64


def run(fake_peers, *peers: str) -> Results:
    results = Results("models", {"cpu": "x", "threads": 1}, {}, "")
    reporter = Reporter(Console(file=io.StringIO(), width=160))
    with Runner(Settings(rounds=3, min_seconds=0.0, threads=1), reporter, start_peer=fake_peers) as runner:
        runner.run([Job(Case("efficientnet_b0", 32, 2, "float32", 0.1), peers)], results, lambda: None)
    return results


@pytest.mark.parametrize(("name", "package"), RUNTIMES.items())
def test_without_its_package_a_runtime_is_unavailable_and_never_started(
    fake_peers, monkeypatch, name, package
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda of: None if of == package else SimpleNamespace())
    results = run(fake_peers, "eager-nhwc", name, "engine")
    row = next(row for row in results.rows if row["peer"] == name)
    assert row["status"] == "unavailable"
    assert f"not installed: {package} (`make peers` installs them)" == row["reason"]
    assert "images_per_second" not in row
    assert [peer.name for peer in fake_peers.started] == ["eager-nhwc", "engine"]
    assert tables.ratio(results.rows, "runtime") is None


def test_the_engine_is_compared_with_the_fastest_runtime(fake_peers, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    results = run(fake_peers, "onnxruntime", "openvino-latency", "engine")
    assert tables.ratio(results.rows, "runtime") == pytest.approx(0.08 / 0.05)
    assert [heading for heading, *_ in tables.ratios_of(results.rows)] == ["vs runtime", "vs best"]


def test_a_wrong_runtime_has_FAIL_and_no_time(fake_peers, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    fake_peers.logits["onnxruntime"] = lambda exact: exact.roll(1, dims=0)
    row = run(fake_peers, "onnxruntime", "engine").rows[0]
    assert (row["peer"], row["status"]) == ("onnxruntime", "FAIL")
    assert "images_per_second" not in row


def test_what_a_peer_cannot_run_reaches_the_table_as_unavailable(b0, fake_peers, monkeypatch, tmp_path):
    """From a worker's process, where it is raised before any package is needed."""
    torch.save(b0.state_dict(), tmp_path / "weights.pt")
    torch.save(distinct_images(SIZE), tmp_path / "images.pt")
    process = PeerProcess("openvino-throughput", threads=2, folder=tmp_path)
    try:
        case = Case("efficientnet_b0", SIZE, 1, "float32", 0.0)
        with pytest.raises(PeerError, match="^2 streams need a batch that divides into 2, not 1$") as failure:
            process.prepare(case, tmp_path / "weights.pt", tmp_path / "images.pt", memory=True)
    finally:
        process.close()
    assert failure.value.unavailable

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    fake_peers.error, fake_peers.dies_at["onnxruntime"] = failure.value, 1
    row = run(fake_peers, "onnxruntime", "engine").rows[0]
    assert (row["status"], row["reason"]) == ("unavailable", str(failure.value))


@pytest.mark.parametrize("name", RUNTIMES)
def test_no_runtime_is_timed_in_a_dtype_that_it_would_convert(name):
    with pytest.raises(PeerUnavailable, match="float32 and bfloat16"):
        PEERS[name].prepare(nn.Flatten(), torch.zeros(2, 3, 4, 4), torch.float16)


class FakeOpenVINO:
    """The part of the package `openvino` that the peers use, over the PyTorch model that was "exported".

    `log` has every request that is started or waited for, in order.
    """

    __version__ = "1.2.3"

    def __init__(self, *, capabilities: tuple[str, ...] = ("FP32", "BF16"), streams: int | None = None):
        self.capabilities, self.streams = capabilities, streams
        self.properties: dict = {}
        self.log: list[tuple[str, int]] = []
        self.requests = 0
        self.model: nn.Module | None = None

    def export(self, model, images, path) -> None:
        self.model, self.shape = model, images.shape

    def Core(self):
        return self

    def compile_model(self, path, device, properties):
        assert device == "CPU"
        self.properties = properties
        return self

    def get_property(self, *of):
        known = {
            **self.properties,
            "OPTIMIZATION_CAPABILITIES": self.capabilities,
            "ENABLE_CPU_PINNING": True,
        }
        if self.streams is not None:
            known["NUM_STREAMS"] = self.streams
        return known[of[-1]]

    def create_infer_request(self):
        self.requests += 1
        return FakeRequest(self, self.requests)

    def Tensor(self, array, shared_memory):
        assert shared_memory
        assert (array.dtype, array.shape) == (np.float32, self.shape)
        return torch.from_numpy(array)


class FakeRequest:
    def __init__(self, of: FakeOpenVINO, number: int):
        self.of, self.number = of, number

    def set_input_tensor(self, tensor):
        self.images = tensor

    def start_async(self):
        self.of.log.append(("start", self.number))

    def wait(self):
        self.of.log.append(("wait", self.number))
        self.logits = self.of.model(self.images).detach().numpy()

    def get_output_tensor(self):
        return SimpleNamespace(data=self.logits)


@pytest.fixture
def openvino(monkeypatch):
    def install(**options) -> FakeOpenVINO:
        fake = FakeOpenVINO(**options)
        monkeypatch.setitem(sys.modules, "openvino", fake)
        monkeypatch.setattr(openvino_runtime, "export_onnx", fake.export)
        return fake

    return install


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).requires_grad_(False)


def test_two_streams_run_the_halves_of_the_batch_at_the_same_time(openvino):
    torch.set_num_threads(2)
    fake, model, images = openvino(), linear(), torch.randn(6, 3, 2, 2)
    prepared = PEERS["openvino-throughput"].prepare(model, images, torch.float32)
    torch.testing.assert_close(prepared.call(), model(images))
    assert fake.log == [("start", 1), ("start", 2), ("wait", 1), ("wait", 2)]
    assert fake.properties["PERFORMANCE_HINT"] == "THROUGHPUT"
    assert (fake.properties["NUM_STREAMS"], fake.properties["INFERENCE_NUM_THREADS"]) == (2, 2)
    assert prepared.details["openvino"] == "1.2.3"
    assert prepared.details["streams"] == prepared.details["threads"] == 2


def test_latency_is_one_request_on_all_threads_in_the_precision_of_the_dtype(openvino):
    torch.set_num_threads(2)
    for dtype, precision in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        fake, model, images = openvino(), linear(), torch.randn(3, 3, 2, 2)
        prepared = PEERS["openvino-latency"].prepare(model, images, dtype)
        torch.testing.assert_close(prepared.call(), model(images.to(dtype).float()))
        assert fake.log == [("start", 1), ("wait", 1)]
        assert fake.properties["PERFORMANCE_HINT"] == "LATENCY"
        assert fake.properties["INFERENCE_PRECISION_HINT"] == prepared.details["precision"] == precision
        assert (fake.properties["NUM_STREAMS"], fake.properties["INFERENCE_NUM_THREADS"]) == (1, 2)


def test_openvino_is_not_timed_where_it_does_something_else_than_asked(openvino):
    openvino(capabilities=("FP32",))
    with pytest.raises(PeerUnavailable, match="does not compute in bfloat16"):
        PEERS["openvino-latency"].prepare(linear(), torch.randn(2, 3, 2, 2), torch.bfloat16)
    openvino(streams=4)
    with pytest.raises(PeerUnavailable, match="asked for 1 streams"):
        PEERS["openvino-latency"].prepare(linear(), torch.randn(2, 3, 2, 2), torch.float32)
    openvino()
    with pytest.raises(PeerUnavailable, match="as many threads, not 1"):
        PEERS["openvino-throughput"].prepare(linear(), torch.randn(2, 3, 2, 2), torch.float32)


def needs(*packages: str):
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: `make peers`")


@needs("onnx", "onnxscript")
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_exported_file_computes_the_model(tmp_path, padding):
    """By ONNX's own reference implementation, on a block with everything that a network has, of an odd size:
    there SAME padding differs from what it is for an even one.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    block = MBConv(4, 6, kernel_size=3, stride=2, expanded_channels=8, squeeze_channels=2, padding=padding)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
    model = nn.Sequential(block, nn.Flatten()).eval().requires_grad_(False)
    images = torch.randn(2, 4, 9, 8)
    export_onnx(model, images, tmp_path / "model.onnx")
    exported = onnx.load(tmp_path / "model.onnx")
    assert not [node for node in exported.graph.node if node.op_type == "BatchNormalization"]
    (logits,) = ReferenceEvaluator(exported).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(images), rtol=1e-4, atol=1e-5)


@needs("onnx", "onnxscript", "onnxruntime", "openvino")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("onnxruntime", "float32"),
        ("openvino-latency", "float32"),
        pytest.param("openvino-latency", "bfloat16", marks=pytest.mark.slow),
        pytest.param("openvino-throughput", "float32", marks=pytest.mark.slow),
        ("openvino-throughput", "bfloat16"),
    ],
)
def test_the_runtimes_pass_the_gate(b0, name, dtype):
    import openvino as runtime

    if dtype == "bfloat16" and "BF16" not in runtime.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO does not compute in bfloat16 on this CPU")
    torch.set_num_threads(2)
    images = distinct_images(SIZE)
    case = Case("efficientnet_b0", SIZE, 6, dtype, 0.0)
    exact, stock = (oracle := make_oracle(b0, images, [case.torch_dtype])).rows(case)
    prepared = PEERS[name].prepare(copy.deepcopy(b0), images[rows_of_batch(6)], case.torch_dtype)
    verdict = judge_logits(
        prepared.call(), oracle=exact, stock=stock, dtype=case.torch_dtype, terms=oracle.terms
    )
    assert verdict.passed, verdict.reason
    assert prepared.details["threads"] == 2


@needs("onnx", "onnxscript", "onnxruntime")
def test_onnx_runtime_says_which_kernel_it_lacks():
    block = MBConv(3, 6, expanded_channels=8, squeeze_channels=2)
    model = nn.Sequential(block, nn.Flatten()).requires_grad_(False).eval()
    with pytest.raises(PeerUnavailable, match=r"ONNX Runtime \S+ on a CPU, torch.bfloat16: .*Conv"):
        onnx_runtime.prepare(model, torch.randn(1, 3, 8, 8), torch.bfloat16)
