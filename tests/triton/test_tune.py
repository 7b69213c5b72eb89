"""The search of configurations, with a clock of its own: candidates, drops, resuming, the file it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from effnet_fast import tune_command
from effnet_fast.measure import device_timing
from effnet_fast.triton_kernels import configs, tune
from effnet_fast.triton_kernels.configs import pointwise_conv, tuned
from effnet_fast.triton_kernels.device import ARCHITECTURES

DEVICE = ARCHITECTURES[90]
VERSIONS = {"triton": "0"}
CPU = torch.device("cpu")


@dataclass
class FakeLaunch:
    """Writes what its configuration is told to write."""

    config: object
    y: torch.Tensor
    wrong: set = field(default_factory=set)
    broken: set = field(default_factory=set)

    def run(self) -> None:
        if self.config in self.broken:
            raise tune.TritonError("out of resource: shared memory")
        self.y.fill_(2.0 if self.config in self.wrong else 1.0)


@dataclass
class Bench:
    """A fake kernel, its clock, and what the search said."""

    wrong: set = field(default_factory=set)
    broken: set = field(default_factory=set)
    microseconds: dict = field(default_factory=dict)
    measured: list = field(default_factory=list)
    stop_after: int | None = None
    drops: list = field(default_factory=list)

    def launches(self, device, outputs, x, weights, out_channels, activation, gate, residual):
        problem = pointwise_conv.Problem(1, x.shape[0], x.shape[1], out_channels, 4, False, False)
        return [FakeLaunch(configs.choose(problem, device), outputs[0], self.wrong, self.broken)]

    def measure(self, launches) -> float:
        if self.stop_after is not None and len(self.measured) == self.stop_after:
            raise KeyboardInterrupt
        config = launches[0].config
        self.measured.append(config)
        return self.microseconds.get(config, 100.0)

    def begin(self, task, done, total) -> None:
        assert 0 <= done < total

    def dropped(self, task, config, reason) -> None:
        self.drops.append((config, reason))

    def search(self, tasks, log, **options) -> bool:
        return tune.search(tasks, DEVICE, CPU, self.measure, log, self, **options)


def _call(rows: int) -> SimpleNamespace:
    def meta(*shape):
        return torch.empty(shape, device="meta")

    arguments = (meta(rows, 64, 1, 1), [meta(96, 64), meta(96)], 96, "silu", None, None)
    return SimpleNamespace(operator="pointwise_conv", outputs=(meta(rows, 96, 1, 1),), arguments=arguments)


@pytest.fixture
def bench(monkeypatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(tune, "_module", lambda call: bench)
    return bench


def _log(folder: Path, resume: bool = True) -> tune.Log:
    return tune.Log.open(folder / "sm-90.jsonl", DEVICE, VERSIONS, resume=resume)


def test_equal_problems_are_one_task_and_the_heuristic_is_first(bench):
    tasks = tune.tasks_of([_call(64), _call(4096), _call(64)], DEVICE)
    assert [task.problem.rows for task in tasks] == [64, 4096]
    for task in tasks:
        assert task.candidates[0] == pointwise_conv.heuristic(task.problem, DEVICE)


def test_every_candidate_is_measured_in_turns_and_the_fastest_wins(bench, tmp_path):
    (task,) = tune.tasks_of([_call(4096)], DEVICE)
    fastest = task.candidates[2]
    bench.microseconds[fastest] = 50.0
    log = _log(tmp_path)
    assert bench.search([task], log)
    assert bench.measured == list(task.candidates) * tune.ROUNDS
    assert tune.best(log) == [tuned.Entry(task.problem, fastest, 50.0)]


def test_noise_does_not_replace_the_heuristic(bench, tmp_path):
    (task,) = tune.tasks_of([_call(4096)], DEVICE)
    bench.microseconds[task.candidates[1]] = 100.0 * (1 - tune.MARGIN / 2)
    log = _log(tmp_path)
    bench.search([task], log)
    assert tune.best(log) == [tuned.Entry(task.problem, task.candidates[0], 100.0)]


def test_the_median_of_the_rounds_counts(bench, tmp_path):
    (task,) = tune.tasks_of([_call(4096)], DEVICE)
    lucky = task.candidates[1]
    log = _log(tmp_path)
    for config, times in ((task.candidates[0], (100, 100, 100)), (lucky, (10, 110, 120))):
        for microseconds in times:
            log.measured(task.problem, config, float(microseconds))
    assert tune.best(log) == [tuned.Entry(task.problem, task.candidates[0], 100.0)]


def test_wrong_and_broken_candidates_are_dropped_and_reported(bench, tmp_path):
    (task,) = tune.tasks_of([_call(4096)], DEVICE)
    wrong, broken = task.candidates[1], task.candidates[2]
    bench.wrong.add(wrong)
    bench.broken.add(broken)
    bench.microseconds.update({wrong: 1.0, broken: 1.0})
    log = _log(tmp_path)
    bench.search([task], log)
    assert [config for config, _ in bench.drops] == [wrong, broken]
    assert "differs from the heuristic's by 1," in bench.drops[0][1]
    assert "shared memory" in bench.drops[1][1]
    assert not {wrong, broken} & set(bench.measured)
    assert tune.best(log)[0].config == task.candidates[0]


def test_an_interruption_loses_nothing(bench, tmp_path):
    tasks = tune.tasks_of([_call(64), _call(4096)], DEVICE)
    total = tune.ROUNDS * sum(len(task.candidates) for task in tasks)
    bench.wrong.add(tasks[0].candidates[1])
    total -= tune.ROUNDS * sum(tasks[0].candidates[1] in task.candidates for task in tasks)
    bench.stop_after = total // 2
    with pytest.raises(KeyboardInterrupt):
        bench.search(tasks, _log(tmp_path))
    with (tmp_path / "sm-90.jsonl").open("a") as file:
        file.write('{"operator": "pointw')  # and the last line was cut off
    bench.stop_after = None
    log = _log(tmp_path)
    assert sum(map(len, log.times.values())) == total // 2
    bench.search(tasks, log)
    assert len(bench.measured) == total
    assert bench.search(tasks, _log(tmp_path))
    assert len(bench.measured) == total
    assert {len(times) for times in log.times.values()} == {tune.ROUNDS}


def test_no_problem_is_begun_after_the_deadline(bench, tmp_path):
    tasks = tune.tasks_of([_call(64), _call(4096)], DEVICE)
    assert not bench.search(tasks, _log(tmp_path), deadline=0.0)
    assert not bench.measured


def test_no_resume_begins_anew(bench, tmp_path):
    tasks = tune.tasks_of([_call(64)], DEVICE)
    bench.search(tasks, _log(tmp_path))
    assert not _log(tmp_path, resume=False).times


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"schema": "effnet_fast.tuning/1", "device": "other", "versions": {}}\n', "was begun with"),
        ("nonsense\n", "damaged log"),
    ],
)
def test_a_foreign_log_is_refused_by_name(tmp_path, text, reason):
    (tmp_path / "sm-90.jsonl").write_text(text)
    with pytest.raises(tuned.TunedError, match=rf"sm-90\.jsonl: .*{reason}.*--no-resume"):
        _log(tmp_path)


def test_what_is_written_is_what_is_looked_up(bench, tmp_path, monkeypatch):
    (task,) = tune.tasks_of([_call(4096)], DEVICE)
    fastest = task.candidates[-1]
    bench.microseconds[fastest] = 1.0
    log = _log(tmp_path)
    bench.search([task], log)
    path = tmp_path / tuned.file_name(DEVICE)
    tuned.save(path, DEVICE, VERSIONS, tune.best(log))
    document = json.loads(path.read_text())
    assert (document["device"], document["versions"]) == (DEVICE.name, VERSIONS)
    monkeypatch.setenv(tuned.DIRECTORY_VARIABLE, str(tmp_path))
    tuned.forget()
    try:
        assert configs.choose(task.problem, DEVICE) == fastest
    finally:
        tuned.forget()


_REAL = """
import sys, torch
from pathlib import Path
from rich.console import Console
from effnet_fast import tune_command
from effnet_fast.measure import device_timing
from effnet_fast.inference.kernel_calls import kernel_calls
from effnet_fast.inference.layers import Layer, Value

def layer(operator, **more):
    return Layer("l", "b", operator, Value("x", (16, 3, 3)), Value("y", (16, 3, 3)), "silu", **more)

layers = [
    layer("pointwise_conv"),
    layer("depthwise_conv_gate", kernel=3, padding=(1, 1, 1, 1), gates=Value("g", (16, 1, 1)), squeeze=4),
]
calls = [c for l in layers for c in kernel_calls(l, 1, torch.float32, torch.float32)]
calls = [c for c in calls if c.operator != "depthwise_conv_pool"]  # the interpreter takes a minute for it
finished = tune_command.run(
    iter(calls), place=torch.device("cpu"), measure=lambda launches: 1.0 + len(launches),
    output=Path(sys.argv[1]), resume=True, deadline=None, console=Console(stderr=True),
)
assert finished
"""


def test_the_real_kernels_are_searched_under_the_interpreter(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _REAL, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wrong" not in done.stderr, done.stderr
    from effnet_fast.triton_kernels.device import INTERPRETER

    entries = tuned.load(tmp_path / "interpreter.json", INTERPRETER)
    assert {entry.problem.operator for entry in entries} == {"pointwise_conv", "squeeze_excite_gate"}


def test_without_a_gpu_the_command_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(tune_command.tune, [])
    assert result.exit_code == 2
    assert result.output == "Error: tuning measures on a GPU, and PyTorch finds none on this machine\n"


def test_an_unknown_model_is_refused():
    result = CliRunner().invoke(tune_command.tune, ["efficientnet_b99"])
    assert result.exit_code == 2
    assert "'efficientnet_b99'" in result.output


class FakeCuda:
    """Of torch, what the timer uses; the clock moves with every call and every flush."""

    uint8 = torch.uint8

    def __init__(self, microseconds: list[float]) -> None:
        self.clock, self.said = 0.0, []
        self._microseconds = iter(microseconds)
        self.cuda = SimpleNamespace(
            current_device=lambda: 0,
            get_device_properties=lambda index: SimpleNamespace(L2_cache_size=1000),
            synchronize=lambda: self.said.append("synchronize"),
            Event=lambda enable_timing: FakeEvent(self),
        )

    def empty(self, size, dtype, device):
        assert (size, device) == (2000, "cuda")
        return SimpleNamespace(zero_=self._flush)

    def _flush(self) -> None:
        self.clock += 1e6
        self.said.append("flush")

    def call(self) -> None:
        self.clock += next(self._microseconds)
        self.said.append("call")


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda

    def record(self) -> None:
        self.at = self._cuda.clock
        self._cuda.said.append("event")

    def elapsed_time(self, end: FakeEvent) -> float:
        return (end.at - self.at) / 1e3


def test_a_call_is_timed_between_its_events_after_a_flush(monkeypatch):
    # The first call compiles; long calls are timed five times, and the median counts.
    fake = FakeCuda([9e9, 2000.0, 4000.0, 3000.0, 90000.0, 1000.0])
    monkeypatch.setattr(device_timing, "torch", fake)
    assert device_timing.DeviceTimer()(fake.call) == 3000.0
    assert fake.said == ["call", *["flush", "event", "call", "event"] * 5, "synchronize"]


def test_short_calls_are_timed_more_often(monkeypatch):
    fake = FakeCuda([0.0, *[100.0] * 5, *[200.0] * 50])
    monkeypatch.setattr(device_timing, "torch", fake)
    assert device_timing.DeviceTimer()(fake.call) == 200.0
    assert fake.said.count("call") == 1 + 5 + 50
