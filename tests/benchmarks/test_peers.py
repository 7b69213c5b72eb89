import copy
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import effnet_fast
from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.process import PeerError, PeerProcess
from benchmarks.subject import distinct_images, make_oracle, rows_of_batch
from effnet_fast.measure import judge_logits

SIZE = 64


@pytest.fixture(scope="module")
def images():
    return distinct_images(SIZE)


@pytest.fixture(scope="module")
def oracle(b0, images):
    return make_oracle(b0, images, [torch.float32, torch.bfloat16])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["eager-nchw", "eager-nhwc", "eager-tuned", "engine"])
def test_every_peer_passes_the_gate(b0, images, oracle, name, dtype):
    case = Case("efficientnet_b0", SIZE, 6, dtype, 0.0)
    prepared = PEERS[name].prepare(copy.deepcopy(b0), images[rows_of_batch(6)], case.torch_dtype)
    exact, stock = oracle.rows(case)
    verdict = judge_logits(
        prepared.call(), oracle=exact, stock=stock, dtype=case.torch_dtype, terms=oracle.terms
    )
    assert verdict.passed, verdict.reason
    assert torch.equal(prepared.call(), prepared.call())


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
        with pytest.raises(PeerError, match="FileNotFoundError"):
            process.prepare(case, weights, folder / "none.pt", memory=False)
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
