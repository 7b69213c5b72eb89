import contextlib
import copy
import gc
import os
import signal
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import effnet_fast
from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.peers.graph import WARM_UP_CALLS, captured, graph_peer
from benchmarks.process import PeerError, PeerProcess
from benchmarks.subject import distinct_images, distinct_pixels, make_oracle, normalised, rows_of_batch
from effnet_fast.measure import judge_logits

SIZE = 64


@pytest.fixture(scope="module")
def images():
    return distinct_images(SIZE)


@pytest.fixture(scope="module")
def oracle(b0, images):
    return make_oracle(b0, images, [torch.float32, torch.bfloat16])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["eager-nchw", "eager-nhwc", "eager-tuned", "timm", "torchvision", "engine"])
def test_every_peer_passes_the_gate(b0, images, oracle, name, dtype):
    case = Case("efficientnet_b0", SIZE, 6, dtype, 0.0)
    prepared = PEERS[name].prepare(copy.deepcopy(b0), images[rows_of_batch(6)], case.torch_dtype)
    exact, stock = oracle.rows(case)
    verdict = judge_logits(
        prepared.call(), oracle=exact, stock=stock, dtype=case.torch_dtype, terms=oracle.terms
    )
    assert verdict.passed, verdict.reason
    assert torch.equal(prepared.call(), prepared.call())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pixels_are_held_to_the_logits_of_their_normalised_floats(b0, dtype):
    case = Case("efficientnet_b0", SIZE, 6, dtype, 0.0)
    pixels = distinct_pixels(SIZE, b0.preprocessing)
    floats = normalised(pixels, b0.preprocessing)
    oracle = make_oracle(b0, floats, [case.torch_dtype])
    exact, stock = oracle.rows(case)

    def verdict(logits: torch.Tensor):
        return judge_logits(
            logits, oracle=exact, stock=stock, dtype=case.torch_dtype, terms=oracle.terms
        ).passed

    prepared = PEERS["engine-uint8"].prepare(copy.deepcopy(b0), pixels[rows_of_batch(6)], case.torch_dtype)
    assert verdict(prepared.call())
    # Pixels of which the mean was not taken are another image.
    unnormalised = (floats + 0.5)[rows_of_batch(6)].float()
    wrong = PEERS["engine"].prepare(copy.deepcopy(b0), unnormalised, case.torch_dtype)
    assert not verdict(wrong.call())


class RecordedGraph(TorchDispatchMode):
    """torch.cuda.CUDAGraph over a CPU: notes the operators of a capture with their tensors, and repeats them
    into the very same results.
    """

    def __init__(self):
        super().__init__()
        self.recorded: list[tuple] = []
        self.replays = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.recorded.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.replays += 1
        with torch.inference_mode():
            for func, args, kwargs, result in self.recorded:
                again = func(*args, **kwargs)
                if not func.is_view:
                    for old, new in zip(_tensors(result), _tensors(again), strict=True):
                        old.copy_(new)


def _tensors(value: object) -> list[torch.Tensor]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [entry for entry in values if isinstance(entry, torch.Tensor)]


class FakeCuda:
    """What a capture asks of torch.cuda, in the order in which it is asked."""

    def __init__(self):
        self.log: list[str] = []
        self.graphs: list[RecordedGraph] = []

    def CUDAGraph(self) -> RecordedGraph:
        self.graphs.append(RecordedGraph())
        return self.graphs[-1]

    def graph(self, graph: RecordedGraph) -> RecordedGraph:
        self.log.append("capture")
        return graph

    def Stream(self) -> "FakeStream":
        return FakeStream("side", self.log)

    def current_stream(self) -> "FakeStream":
        return FakeStream("main", self.log)

    @contextlib.contextmanager
    def stream(self, stream: "FakeStream"):
        self.log.append(f"on {stream.name}")
        yield


class FakeStream:
    def __init__(self, name: str, log: list[str]):
        self.name, self.log = name, log

    def wait_stream(self, other: "FakeStream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


def test_a_captured_peer_replays_what_it_captured(b0, images, oracle):
    cuda = FakeCuda()
    eager_calls = []

    def prepare(model, images, dtype):
        prepared = PEERS["eager-nhwc"].prepare(model, images, dtype)
        return replace(prepared, call=lambda: (eager_calls.append(1), prepared.call())[1])

    peer = graph_peer(replace(PEERS["eager-nhwc"], prepare=prepare), name="g", label="g", cuda=cuda)
    assert (peer.group, peer.devices) == ("graph", ("cuda",))
    prepared = peer.prepare(copy.deepcopy(b0), images, torch.float32)
    # Warmed up on another stream, as PyTorch demands, before anything is captured.
    assert cuda.log == ["side waits for main", "on side", "main waits for side", "capture"]
    calls = len(eager_calls)
    assert calls == WARM_UP_CALLS + 1

    first = prepared.call()
    with torch.inference_mode():
        first.zero_()
    second = prepared.call()
    assert second.data_ptr() == first.data_ptr()
    assert cuda.graphs[0].replays == 2
    assert len(eager_calls) == calls  # a replay, not the model again
    torch.testing.assert_close(second.double(), oracle.exact, rtol=1e-3, atol=1e-4)
    assert prepared.own_bytes > 1 << 20  # the activations that the graph keeps


def test_what_a_graph_reads_lives_as_long_as_its_replay():
    """A graph holds no reference to tensors that were there before it: freed, their memory is anybody's."""
    images = torch.ones(2)
    read = weakref.ref(images)
    replay, _ = captured(lambda images=images: images + 1, torch.device("cpu"), FakeCuda())
    replay.__closure__[0].cell_contents.recorded.clear()  # the fake's own references
    del images
    gc.collect()
    assert read() is not None
    del replay
    gc.collect()
    assert read() is None


def test_folding_leaves_no_batch_norm(b0):
    model = copy.deepcopy(b0)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert fold_batch_norms(model) == norms == 49
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.slow
def test_the_compiled_peer_is_frozen_and_right():
    """On one block: compiling a whole network takes half a minute."""
    from effnet_fast.nn import MBConv

    torch.manual_seed(0)
    block = nn.Sequential(MBConv(8, 8, expanded_channels=48, squeeze_channels=2), nn.Flatten()).eval()
    images = torch.randn(2, 8, 6, 6)
    expected = block(images)
    block.requires_grad_(False)
    prepared = PEERS["compiled"].prepare(copy.deepcopy(block), images, torch.float32)
    torch.testing.assert_close(prepared.call(), expected, rtol=1e-4, atol=1e-5)
    torch.compiler.reset()


VIEWS = ("view", "_unsafe_view", "flatten", "t", "transpose", "expand", "alias", "detach")
SAME = {"adaptive_avg_pool2d": "mean", "_adaptive_avg_pool2d": "mean"}  # two spellings of pooling to 1 x 1


class OperatorTrace(TorchDispatchMode):
    """Counts operators by name and largest operand; views, which move no data, are left out."""

    def __init__(self):
        super().__init__()
        self.calls: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if name not in VIEWS:
            operands = [value for value in args if isinstance(value, torch.Tensor)]
            largest = max(operands, key=torch.Tensor.numel)
            self.calls[SAME.get(name, name), tuple(largest.shape)] += 1
        return result


def test_stock_is_torchvisions_network_operator_by_operator(b0, images):
    """The stock peers run our modules; they would flatter us if those did more work than torchvision's."""
    import torchvision

    theirs = torchvision.models.efficientnet_b0()
    source = effnet_fast.create_model("efficientnet_b0", weights=theirs.state_dict()).eval()
    theirs.eval()
    with torch.inference_mode():
        assert torch.equal(source(images), theirs(images))
        traces = []
        for model in (source, theirs):
            with OperatorTrace() as trace:
                model(images)
            traces.append(trace.calls)
    ours, reference = traces
    assert ours == reference


@pytest.fixture(scope="module")
def files(b0, images, tmp_path_factory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("worker")
    torch.save(b0.state_dict(), folder / "weights.pt")
    torch.save(images, folder / "images.pt")
    return folder, folder / "weights.pt", folder / "images.pt"


def test_a_worker_process_prepares_times_and_releases(files, oracle):
    folder, weights, images = files
    case = Case("efficientnet_b0", SIZE, 2, "float32", 0.0)
    process = PeerProcess("eager-nhwc", threads=1, folder=folder)
    try:
        logits, details = process.prepare(case, weights, images, memory=True)
        torch.testing.assert_close(logits.double(), oracle.rows(case)[0], rtol=1e-3, atol=1e-4)
        assert details["prepare_seconds"] > 0
        assert details["activation_bytes"] > 1 << 20
        assert all(0 < seconds < 10 for seconds in process.sample(0.01))
        process.release()
        with pytest.raises(PeerError, match="RuntimeError: sample: nothing is prepared"):
            process.sample(0.01)
        with pytest.raises(PeerError, match="FileNotFoundError") as failure:
            process.prepare(case, weights, folder / "none.pt", memory=False)
        assert not failure.value.out_of_memory
        process.release()
        with pytest.raises(PeerError) as failure:  # 2^47 bytes are more than a process may address
            process.prepare(replace(case, batch=1 << 44), weights, images, memory=False)
        assert failure.value.out_of_memory
        process.release()

        process.prepare(case, weights, images, memory=False)
        worker = process._process.pid
        (case_process,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        os.kill(int(case_process), signal.SIGSEGV)
        with pytest.raises(PeerError, match=r"its process ended \(status 1\): .*SIGSEGV"):
            process.sample(0.01)
    finally:
        process.close()
    assert process._process.poll() is not None


def test_closing_ends_a_worker_in_the_middle_of_its_start(tmp_path):
    process = PeerProcess("engine", threads=1, folder=tmp_path)
    process.close()
    assert process._process.poll() is not None
