import pytest
import torch

from benchmarks import devices


class Gpu:
    """It works behind the caller's back: a call takes `launch` of the host and `work` of the device."""

    def __init__(self, launch: float, work: float):
        self.launch, self.work = launch, work
        self.now = 0.0
        self.busy_until = 0.0
        self.calls = 0
        self.synchronisations = 0

    def call(self) -> None:
        self.calls += 1
        self.now += self.launch
        self.busy_until = max(self.busy_until, self.now) + self.work

    def synchronize(self) -> None:
        self.synchronisations += 1
        self.now = max(self.now, self.busy_until)

    def clock(self) -> float:
        return self.now


def batches(gpu: Gpu) -> devices.CallBatches:
    return devices.CallBatches(gpu.call, synchronize=gpu.synchronize, clock=gpu.clock)


def test_a_throughput_is_that_of_a_full_queue():
    gpu = Gpu(launch=0.5e-3, work=1e-3)
    seconds = batches(gpu).sample(0.1)
    # The first launch of a batch is not hidden; the others are.
    assert seconds == pytest.approx([1e-3] * len(seconds), rel=0.04)
    assert sum(seconds) >= 0.1
    assert gpu.synchronisations < gpu.calls / 4


def test_a_call_bound_by_launches_is_not_flattered():
    gpu = Gpu(launch=2e-3, work=1e-3)
    # Seven launches, behind which all work hides but the last call's.
    assert batches(gpu).sample(0.05)[0] == pytest.approx(15e-3 / 7)


def test_a_long_call_is_a_batch_by_itself():
    gpu = Gpu(launch=0.0, work=0.5)
    assert batches(gpu).sample(0.2) == [0.5]


def test_the_latency_of_one_call_counts_launch_and_work(monkeypatch):
    gpu = Gpu(launch=0.5e-3, work=1e-3)
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    candidate = devices.candidate(gpu.call, "cuda", each_call=True)
    candidate._clock = gpu.clock
    assert candidate.sample(0.01) == pytest.approx([1.5e-3] * 7)


def test_without_a_gpu_the_default_is_the_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.check_device(None) == "cpu"
    with pytest.raises(ValueError, match="no GPU that PyTorch can use"):
        devices.check_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.check_device(None) == "cuda"
    assert devices.check_device("cpu") == "cpu"


def test_float32_is_not_tf32_on_a_gpu():
    before = (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    try:
        devices.configure("cuda")
        assert torch.backends.cudnn.benchmark
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.backends.cuda.matmul.allow_tf32 = before[2]


def test_what_is_out_of_memory():
    assert devices.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert devices.is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert devices.is_out_of_memory(MemoryError())
    assert not devices.is_out_of_memory(ValueError("wrong shape"))
