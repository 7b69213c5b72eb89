"""`effnet-fast bench MODEL`: the table, the answer, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import warnings

import pytest
import torch
from torch import nn

from effnet_fast import bench_command
from effnet_fast.bench_subject import Gate, Subject, find_subject
from effnet_fast.measure import LocalCandidate
from tests.command import invoke

OPTIONS = ("--device", "cpu", "--image-size", 32)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Three rounds of one call, on one thread."""
    monkeypatch.setattr(bench_command, "ROUNDS", 3)
    monkeypatch.setattr(bench_command, "SAMPLE_SECONDS", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def clock(monkeypatch):
    """`clock[name]` = seconds of a call: calls are made, and their times replaced."""
    seconds = {"eager NCHW": 0.04, "eager channels_last": 0.02, "effnet_fast": 0.01}

    class Timed(LocalCandidate):
        def sample(self, min_seconds):
            super().sample(min_seconds)
            return [seconds[self.name]] * 2

    def candidate(call, device):
        timed = Timed(call)
        timed.name = next(name for name in seconds if name not in named)
        named.append(timed.name)
        return timed

    named = []
    monkeypatch.setattr(bench_command, "_candidate", candidate)
    return seconds


def lines(done) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.strip()]


def row(done, name: str) -> list[str]:
    return next(line for line in lines(done) if line.strip().startswith(name)).split()


def test_a_faster_engine_is_one_table_and_one_sentence(clock):
    done = invoke("bench", "efficientnet_b0", *OPTIONS, "--batch", 2)
    assert done.exit_code == 0, done.output
    assert lines(done)[0].startswith("efficientnet_b0 (effnet_fast), 32 x 32, batch 2, float32; ")
    assert row(done, "eager NCHW") == ["eager", "NCHW", "40", "0.0%", "50", "4.00x", "ok"]
    assert row(done, "eager channels_last") == ["eager", "channels_last", "20", "0.0%", "100", "2.00x", "ok"]
    assert row(done, "effnet_fast") == ["effnet_fast", "10", "0.0%", "200", "-", "ok"]
    answer = "effnet_fast is 2.00 times as fast as the fastest other, eager channels_last: "
    assert lines(done)[-1] == answer + "10 instead of 20 ms a call."


@pytest.mark.parametrize(
    ("seconds", "answer"),
    [
        (0.0202, "No difference beyond noise: effnet_fast takes 20.2 instead of 20 ms a call of the fastest"),
        (0.03, "effnet_fast is slower here than eager channels_last: 30 instead of 20 ms a call."),
    ],
)
def test_an_engine_that_is_not_faster_is_told_as_plainly(clock, seconds, answer):
    clock["effnet_fast"] = seconds
    done = invoke("bench", "efficientnet_b0", *OPTIONS)
    assert done.exit_code == 0
    assert lines(done)[-1].startswith(answer)
    assert ("=" in row(done, "eager channels_last")) == (seconds == 0.0202)


def test_real_clocks_time_our_model_in_bfloat16():
    done = invoke("bench", "efficientnet_lite0", *OPTIONS, "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    assert [row(done, name)[-1] for name in ("eager NCHW", "eager channels_last", "effnet_fast")] == [
        "ok"
    ] * 3
    assert "ms a call" in lines(done)[-1]


@pytest.mark.parametrize(
    ("name", "library"), [("timm:efficientnet_b0", "timm"), ("mobilenet_v2", "torchvision")]
)
def test_models_of_other_libraries_are_fused(clock, name, library):
    done = invoke("bench", name, *OPTIONS)
    assert done.exit_code == 0, done.output
    assert f"({library})" in lines(done)[0]
    fused = next(line for line in lines(done) if line.startswith("effnet_fast: "))
    assert int(fused.split()[1]) > 10
    assert lines(done)[-1].startswith("effnet_fast is 2.00 times as fast")


def test_a_model_with_nothing_to_fuse_is_told_and_no_fault(clock):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the sentence says it, not a warning besides
        done = invoke("bench", "torchvision:squeezenet1_1", "--device", "cpu", "--image-size", 64)
    assert done.exit_code == 0, done.output
    assert lines(done)[-1].startswith(
        "effnet_fast does nothing for squeezenet1_1 here: fuse() finds nothing to fuse"
    )
    assert row(done, "effnet_fast")[1:] == ["-"] * 5


def test_a_wrong_kernel_has_FAIL_and_no_time(clock, monkeypatch):
    def wrong(*arguments):
        call, note = bench_command._ours(*arguments)
        return lambda: call().roll(1, dims=1), note

    monkeypatch.setitem(bench_command._PREPARE, "effnet_fast", wrong)
    done = invoke("bench", "efficientnet_b0", *OPTIONS)
    assert done.exit_code == 1
    assert row(done, "effnet_fast") == ["effnet_fast", "-", "-", "-", "-", "FAIL"]
    assert "effnet_fast: FAIL: max error" in done.stdout
    assert lines(done)[-1].startswith("effnet_fast computes something else")


def test_one_that_breaks_off_leaves_the_others(clock, monkeypatch):
    def broken(*arguments):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setitem(bench_command._PREPARE, "eager NCHW", broken)
    clock.pop("eager NCHW")
    done = invoke("bench", "efficientnet_b0", *OPTIONS)
    assert done.exit_code == 0, done.output
    assert "eager NCHW: OutOfMemoryError: no memory" in done.stdout
    assert "2.00 times as fast" in lines(done)[-1]


def test_an_engine_that_breaks_off_is_a_failure(clock, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(bench_command._PREPARE, "effnet_fast", broken)
    done = invoke("bench", "efficientnet_lite0", *OPTIONS)
    assert done.exit_code == 1
    assert "effnet_fast: RuntimeError: no such kernel" in done.stdout
    assert lines(done)[-1].startswith("effnet_fast does not run efficientnet_lite0 here")


@pytest.mark.parametrize(("rounds", "answered"), [(3, True), (2, False)])
def test_ctrl_c_keeps_the_rounds_that_are_complete(monkeypatch, rounds, answered):
    monkeypatch.setattr(bench_command, "ROUNDS", 9)
    calls = []

    class Stops:
        def __init__(self, seconds):
            self.seconds = seconds

        def sample(self, min_seconds):
            calls.append(self)
            if len(calls) > 3 * rounds + 1:
                raise KeyboardInterrupt
            return [self.seconds]

    seconds = iter([0.04, 0.02, 0.01])
    monkeypatch.setattr(bench_command, "_candidate", lambda call, device: Stops(next(seconds)))
    done = invoke("bench", "efficientnet_b0", *OPTIONS)
    assert done.exit_code == 130
    assert ("2.00 times as fast" in done.stdout) == answered
    assert ("Interrupted before three rounds" in done.stdout) != answered
    assert row(done, "effnet_fast")[-1] == "ok"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("efficientnet_b9x",), "is called 'efficientnet_b9x'; did you mean efficientnet_b"),
        (("keras:efficientnet_b0",), "keras: is no library that is known here; allowed: timm, torchvision"),
        (("torchvision:efficientnet_lite0",), "no model of torchvision is called 'efficientnet_lite0'"),
        (("torchvision:inception_v3", "--image-size", 32), "inception_v3 takes no images of 32 x 32"),
        (("efficientnet_b0", "--batch", 0), "0 is not in the range"),
        (("efficientnet_b0", "--dtype", "int8"), "'int8' is not one of"),
        (("efficientnet_b0", "--image-size", 1), "1 is not in the range"),
    ],
)
def test_mistakes_exit_with_2(arguments, words):
    done = invoke("bench", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_without_the_libraries_the_error_says_which_are_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = invoke("bench", "resnet50")
    assert done.exit_code == 2
    assert (
        "effnet_fast, timm, torchvision (timm and torchvision not installed) is called 'resnet50'"
        in done.stderr
    )


def test_without_a_gpu_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = invoke("bench", "efficientnet_b0", "--device", "cuda")
    assert done.exit_code == 2
    assert "finds no CUDA GPU" in done.stderr


def test_the_gate_refuses_models_that_give_no_logits_or_no_numbers():
    maps = Subject("maps", "timm", nn.Conv2d(3, 4, 1), 8)
    with pytest.raises(ValueError, match="maps gives no logits"):
        Gate(maps, 1, torch.float32)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    linear[1].weight.data.fill_(1e38)
    with pytest.raises(ValueError, match=r"in torch.float32 are not finite"):
        Gate(Subject("large", "timm", linear, 8), 2, torch.float32)


def test_weights_are_the_same_every_time_and_the_random_state_is_left_alone():
    state = torch.random.get_rng_state()
    one, other = find_subject("efficientnet_lite0", 32), find_subject("efficientnet_lite0", 32)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    assert not one.model.training
    gate = Gate(one, 3, torch.float32)
    assert torch.equal(gate.images[0], gate.images[2])
    logits = one.model(gate.images)
    assert gate.judge(logits).passed
    assert 0.05 < logits.std() < 50  # activations neither vanish nor explode
    assert not gate.judge(logits[[1, 0, 2]]).passed
