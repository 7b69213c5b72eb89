import pytest
import torch
from click.testing import CliRunner

from benchmarks import memory
from benchmarks.cases import Case
from benchmarks.commands import main
from benchmarks.results import load
from effnet_fast.measure import peak_allocated_bytes


def test_the_three_kernel_plan_takes_half_of_eager(b0):
    """At B0's own size: its largest step holds the expanded map and what the depthwise convolution makes of
    it; eager PyTorch holds the map twice, before and after a batch norm or an activation.
    """
    case = Case("efficientnet_b0", 224, 1, "float32", 0.0)
    rows = {row["peer"]: row for row in memory.MemoryRunner("cpu")(memory.Job(case))}
    assert [row["status"] for row in rows.values()] == ["ok"] * 3
    assert rows["three-kernel"]["ratio"] <= 0.55
    assert rows["engine"]["ratio"] <= 0.55
    # The first expansion's 96 channels, at half the side.
    largest = 4 * 112 * 112 * 96
    assert rows["three-kernel"]["activation_bytes"] >= largest
    assert rows["eager"]["activation_bytes"] >= 2 * largest


def test_what_does_not_fit_is_recorded(monkeypatch):
    def too_much(model, case, device):
        raise torch.OutOfMemoryError("2 GiB")

    monkeypatch.setitem(memory.FORMS, "eager", ("eager NHWC", too_much))
    case = Case("efficientnet_b0", 32, 1, "float32", 0.0)
    rows = {row["peer"]: row for row in memory.MemoryRunner("cpu")(memory.Job(case))}
    assert rows["eager"]["status"] == "out of memory"
    assert "ratio" not in rows["engine"]
    assert rows["engine"]["activation_bytes"] > 0


def test_the_command_writes_its_file_and_table(tmp_path):
    arguments = ["memory", "--model", "efficientnet_lite0", "--batch", "1,2", "--dtype", "bfloat16"]
    done = CliRunner().invoke(main, [*arguments, "--device", "cpu", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = load(tmp_path / "memory.json", kind="memory").rows
    assert [(row["batch"], row["peer"]) for row in rows] == [
        (batch, form) for batch in (1, 2) for form in ("eager", "three-kernel", "engine")
    ]
    assert "three kernels" in done.output
    planned = {row["batch"]: row["activation_bytes"] for row in rows if row["peer"] == "three-kernel"}
    assert planned[2] == pytest.approx(2 * planned[1], rel=0.01)


class FakeAllocator:
    """torch.cuda's counters over tensors of a CPU."""

    def __init__(self, monkeypatch):
        self.held = self.peak = 1000
        for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def take(self, count: int) -> None:
        self.held += count
        self.peak = max(self.peak, self.held)

    def synchronize(self, device) -> None:
        pass

    def reset_peak_memory_stats(self, device) -> None:
        self.peak = self.held

    def memory_allocated(self, device) -> int:
        return self.held

    def max_memory_allocated(self, device) -> int:
        return self.peak


def test_the_peak_on_a_gpu_is_beyond_what_was_held_before(monkeypatch):
    allocator = FakeAllocator(monkeypatch)
    allocator.take(500)
    allocator.take(-500)  # an older, higher peak must not count

    def call():
        allocator.take(300)
        allocator.take(-200)
        allocator.take(150)

    assert peak_allocated_bytes(call, "cuda") == 300
    with pytest.raises(ValueError, match="'meta'; allowed: cpu and cuda"):
        peak_allocated_bytes(call, "meta")
