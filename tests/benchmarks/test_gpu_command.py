"""`python -m benchmarks.gpu` without a GPU: steps are fakes, what is around them is not."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import ceilings, machine, operators, report, sanitize, small_calls, steps, tests
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.steps import (
    FAILED,
    NOT_RUN,
    PASSED,
    Failed,
    Finished,
    NotRun,
    Outcome,
    Step,
    Workspace,
    run_step,
)
from benchmarks.toolkit import setup_facts
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Expectation, Target

GPU = Machine(gpu="Some GPU", capability="9.0", torch="2.11.0", driver="13000")


def step(name: str, run, limit_seconds: float = 30.0) -> Step:
    return Step(name, f"does {name}", limit_seconds, run)


def passes(space: Workspace) -> Outcome:
    return Outcome("good", PASSED, "fine", ["a detail"], [{"what": "speed", "value": 3, "unit": "m/s"}])


def fails(space: Workspace) -> Outcome:
    raise Failed("two of three are wrong")


def breaks(space: Workspace) -> Outcome:
    raise ZeroDivisionError("of all things")


def lacks(space: Workspace) -> Outcome:
    raise NotRun("the tool is missing")


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(machine, "find", lambda: GPU)


def run(capsys, out, runs: dict, *arguments: str) -> tuple[int, str]:
    named = {name: step(name, run) for name, run in runs.items()}
    status = command.main([*arguments, "--out", str(out)], named)
    return status, capsys.readouterr().out


def test_every_step_runs_whatever_the_one_before_did(with_gpu, capsys, tmp_path):
    status, said = run(capsys, tmp_path, {"a": fails, "b": breaks, "c": lacks, "good": passes})
    assert status == 1
    assert "a: failed: two of three are wrong\n" in said
    assert "b: failed: ZeroDivisionError: of all things\n" in said
    assert "c: not run: the tool is missing\n" in said
    assert "good: passed: fine\n  a detail\n" in said
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert [entry["status"] for entry in saved["steps"]] == [FAILED, FAILED, NOT_RUN, PASSED]
    assert saved["machine"]["gpu"] == "Some GPU"
    with (tmp_path / "gpu.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"step": "good", "what": "speed", "value": "3", "unit": "m/s"}]


def test_exit_status(with_gpu, capsys, tmp_path):
    assert run(capsys, tmp_path, {"good": passes, "c": lacks})[0] == 0
    assert run(capsys, tmp_path, {"c": lacks})[0] == 2
    assert run(capsys, tmp_path, {"good": passes, "a": fails})[0] == 1


def test_steps_are_chosen_and_keep_their_order(with_gpu, capsys, tmp_path):
    ran = []
    runs = {name: lambda space, name=name: ran.append(name) or Outcome(name, PASSED, "") for name in "abc"}
    assert run(capsys, tmp_path, runs, "--step", "c, a")[0] == 0
    assert ran == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--step", "a,nothing"), "--step: nothing is not known; steps: a"),
        (("--limit", "0"), "--limit: 0 is not positive"),
        (("--out", "/dev/null/x"), "/dev/null/x"),
    ],
)
def test_a_wrong_option_is_a_sentence(with_gpu, capsys, tmp_path, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(tmp_path), *arguments], {"a": step("a", passes)})
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_interrupt_keeps_the_steps_before(with_gpu, capsys, tmp_path):
    def interrupted(space: Workspace) -> Outcome:
        raise KeyboardInterrupt

    status, said = run(capsys, tmp_path, {"good": passes, "b": interrupted, "c": fails})
    assert status == 130
    assert "good: passed: fine\n" in said
    assert "c: failed" not in said
    assert len(json.loads((tmp_path / "gpu.json").read_text())["steps"]) == 1


def test_without_a_gpu_each_step_is_one_line(tmp_path):
    """The real command in a process that sees no GPU, on any machine."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path)],
        cwd=machine.ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    for name in ("build", "test", "sanitize", "ceilings", "ops", "compiled"):
        assert f"{name}: not run: no GPU is visible" in lines
    assert len(lines) < 12


def test_a_pytorch_that_cannot_be_asked_is_a_reason(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert "PyTorch cannot be asked for a GPU: exit status 1" in machine.find().reason


@pytest.mark.parametrize(
    "handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"]
)
def test_a_command_gets_its_limit_and_may_write_what_it_has(tmp_path, handler):
    """Also where this process ignores SIGINT, as one does that a script started with `&`."""
    # A shell, which is there within milliseconds: Python may take longer to start than its limit, on a busy
    # machine, and then hears of no interrupt.
    code = "trap 'echo half of it; exit 1' INT; echo begun; while :; do sleep 0.05; done"
    begin = time.monotonic()
    before = signal.signal(signal.SIGINT, handler)
    try:
        done = Workspace(GPU, tmp_path, 1.5).run("slow", ["sh", "-c", code])
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 15
    assert done.timed_out
    assert done.output.split("\n")[:2] == ["begun", "half of it"]
    assert done.log == tmp_path / "slow.log"


def test_a_command_that_does_not_listen_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.steps.GRACE_SECONDS", 0.5)
    pid_file = tmp_path / "pid"
    code = f"trap '' INT; sh -c 'trap \"\" INT; echo $$ > {pid_file}; exec sleep 60' & wait"
    done = Workspace(GPU, tmp_path, 1.0).run("deaf", ["sh", "-c", code])
    assert done.timed_out
    assert done.status == -9
    assert _ended(int(pid_file.read_text()))


def _ended(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process is gone, or dead and only not yet collected, within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_limit_is_each_steps_own_unless_given(tmp_path):
    seen = []
    look = step("a", lambda space: seen.append(space.limit_seconds) or Outcome("a", PASSED, ""), 7.0)
    run_step(look, GPU, tmp_path)
    run_step(look, GPU, tmp_path, limit_seconds=3.0)
    assert seen == [7.0, 3.0]
    assert all(real.limit_seconds + steps.GRACE_SECONDS < 480 for real in command.STEPS.values())


def test_the_table_has_less_than_100_lines_and_cuts_the_longest_step():
    outcomes = [
        Outcome("ops", PASSED, "much", [f"layer {i}" for i in range(500)]),
        Outcome("test", FAILED, "x" * 1000, [f"test {i}" for i in range(12)]),
    ]
    lines = report.table(GPU, outcomes, machine.ROOT)
    assert len(lines) < 100
    assert max(map(len, lines)) <= max(160, len(lines[-1]))
    assert "  test 11" in lines
    assert any(line.startswith("  ... 42") and line.endswith("more lines") for line in lines)


XML = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.ops.test_a" name="test_fine"/>
<testcase classname="tests.ops.test_a" name="test_wrong">
<failure message="AssertionError: 3 &gt; 2">...</failure></testcase>
<testcase classname="tests.ops.test_a" name="test_left_out"><skipped message="no GPU">...</skipped></testcase>
<testcase classname="" name="tests.ops.test_p"><error message="collection failure">
ModuleNotFoundError: No module named 'hypothesis'</error></testcase>
<testcase classname="" name="tests.ops.test_q"><error message="collection failure">
ModuleNotFoundError: No module named 'effnet_fast.lost'</error></testcase>
</testsuite></testsuites>"""


def test_pytests_report_is_judged(tmp_path):
    path = tmp_path / "tests.xml"
    path.write_text(XML)
    outcome = tests.judge(path)
    assert outcome.status == FAILED
    assert outcome.summary == "1 passed, 2 failed, 1 skipped, 1 not run"
    assert outcome.details[0].startswith("test_a::test_wrong: AssertionError: 3 > 2")
    assert outcome.details[-2].startswith("skipped: test_a::test_left_out: no GPU")
    assert outcome.details[-1] == "not run: tests.ops.test_p: hypothesis is missing"


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("", PASSED),
        ('<testcase classname="t" name="s"><skipped message="why not"/></testcase>', FAILED),
        (
            '<testcase classname="t" name="s"><skipped message="the reference allocates its intermediates"/>'
            "</testcase>",
            PASSED,
        ),
    ],
)
def test_a_skip_needs_an_allowed_reason(tmp_path, case, status):
    path = tmp_path / "tests.xml"
    path.write_text(f'<testsuite><testcase classname="t" name="a"/>{case}</testsuite>')
    assert tests.judge(path).status == status


SANITIZER = """#!/bin/sh
case "$*" in
  *racecheck*-c*) echo "========= Error: Device not supported"; exit 1;;
  *-c*) exit 0;;
  *small_calls\\ triton) echo "not run: triton cannot be imported"; exit 0;;
  *) echo "========= Invalid __global__ read of size 16 bytes"
     echo "========= ERROR SUMMARY: 1 error"; exit 9;;
esac
"""


def test_a_sanitizer_may_refuse_one_tool_and_find_something_with_the_other(tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text(SANITIZER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    outcome = run_step(sanitize.SANITIZE, GPU, tmp_path)
    assert (outcome.status, outcome.summary) == (FAILED, "memcheck cuda 1 error")
    assert outcome.details == [
        "memcheck cuda: Invalid __global__ read of size 16 bytes; see sanitize-memcheck-cuda.log",
        "memcheck triton: not run: triton cannot be imported",
        "racecheck: not run: it refuses this machine: Error: Device not supported",
    ]


def test_without_a_sanitizer_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = run_step(sanitize.SANITIZE, GPU, tmp_path)
    assert (outcome.status, outcome.summary) == (NOT_RUN, "compute-sanitizer is not on PATH")


def test_small_calls_have_every_operator_with_a_kernel_and_are_right():
    assert set(small_calls.CASES) == {
        name for name, row in OPERATORS.items() if not row.parts or name == "depthwise_conv_gate"
    }
    seen = set()
    for operator, dtype, args in small_calls.calls():
        if (operator, dtype) in seen and dtype != torch.float32:
            continue
        seen.add((operator, dtype))
        Expectation.of(operator, args).assert_within(Target("cpu", packed=True).run(operator, args))


def _row(case: str, peer: str, ms: float, **more: object) -> dict:
    group = "stock" if peer in ("eager", "eager-native") else "ours"
    row = dict(case=case, model="efficientnet_b0", layer=case, step="depthwise", shape="8x8x8", batch=256)
    row |= dict(peer=peer, label=peer, group=group, status="ok", reason="", median_ms=ms, copy_share=0.1 / ms)
    return row | more


def test_layers_are_summed_up_by_batch_and_kind():
    rows = [
        _row("a", "cuda", 0.2), _row("a", "triton", 0.4),
        _row("a", "eager", 0.5), _row("a", "eager-native", 0.3),
        _row("b", "cuda", 0.4), _row("b", "triton", 0.5), _row("b", "eager", 0.2),
    ]  # fmt: skip
    first, slower = operators.summary_lines(rows)
    assert "cuda  38% of copy (worst 25%), 1.00x stock (worst 0.50x), 2 layers" in first
    assert "triton  22% of copy (worst 20%), 0.57x stock (worst 0.40x), 2 layers" in first
    assert slower == "slower: 0.50x of eager: b0 b 8x8x8, batch 256"


def _ops(monkeypatch, tmp_path, statuses: dict[str, int], **more: object):
    """The step's outcome, and the commands that it gave, where `benchmarks ops` ends with these by batch."""
    given = []

    def ops(space: Workspace, name: str, *arguments: str, **environment: str) -> Finished:
        given.append(arguments)
        batch = arguments[arguments.index("--batch") + 1]
        out = tmp_path / "ops" / f"batch-{batch}"
        out.mkdir(parents=True, exist_ok=True)
        if statuses[batch] < 2:
            row = _row(f"layer of {batch}", "cuda", 0.2, batch=int(batch), **more)
            (out / "operators-cuda.json").write_text(json.dumps({"rows": [row]}))
        return Finished(
            statuses[batch], "Usage: ...\nError: no such thing\n", False, tmp_path / f"{name}.log"
        )

    monkeypatch.setattr(Workspace, "python", ops)
    return run_step(operators.OPERATORS, GPU, tmp_path), given


def test_layers_are_measured_batch_by_batch_each_with_its_share_of_the_time(monkeypatch, tmp_path):
    outcome, given = _ops(monkeypatch, tmp_path, {"256": 0, "32": 0, "1": 0})
    assert (outcome.status, len(outcome.rows)) == (PASSED, 3)
    assert outcome.summary == "3 layers measured, 0 wrong results; files in ops/"
    assert [arguments[arguments.index("--batch") + 1] for arguments in given] == ["256", "32", "1"]
    minutes = [float(text.partition("=")[2]) for c in given for text in c if text.startswith("--limit-min")]
    # The fakes take no time, so the next has more.
    assert minutes == pytest.approx([(450 / n - 15) / 60 for n in (3, 2, 1)], abs=0.05)


def test_a_wrong_layer_fails_the_step_and_the_others_are_kept(monkeypatch, tmp_path):
    more = {"status": "FAIL", "reason": "error is 3 times what the contract allows"}
    outcome, _ = _ops(monkeypatch, tmp_path, {"256": 1, "32": 1, "1": 1}, **more)
    assert (outcome.status, len(outcome.rows)) == (FAILED, 3)
    assert outcome.details[0].endswith("batch 256: FAIL: error is 3 times what the contract allows")


def test_results_of_an_earlier_run_are_not_taken_for_this_one_s(monkeypatch, tmp_path):
    _ops(monkeypatch, tmp_path, {"256": 0, "32": 0, "1": 0})
    outcome, _ = _ops(monkeypatch, tmp_path, {"256": 2, "32": 2, "1": 2})
    assert (outcome.status, outcome.rows) == (FAILED, [])
    assert outcome.summary == "batch 256: Error: no such thing; see ops-256.log"


def test_ceilings_compile(tmp_path):
    """Where there is a compiler; what they measure needs a GPU."""
    facts = setup_facts()
    if facts["CUDA_ROOT"] is None:
        assert "compiler" in facts["MISSING"] or "no CUDA" in facts["MISSING"] or "SKIP" in facts["MISSING"]
        return
    nvcc = facts["CUDA_ROOT"] / "bin" / "nvcc"
    for architecture in ("sm_80", "sm_90"):
        target = tmp_path / f"{architecture}.cubin"
        command_line = [nvcc, "-std=c++20", f"-arch={architecture}", "-cubin", "-Werror", "all-warnings"]
        subprocess.run([*command_line, "-o", target, ceilings.SOURCE], check=True, timeout=120)
        assert target.stat().st_size > 0
