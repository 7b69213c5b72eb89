"""The `engine` step of `python -m benchmarks.gpu` without a GPU: the commands are fakes."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import engine
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.steps import FAILED, PASSED, Finished, Workspace, run_step

GPU = Machine(gpu="Some GPU", capability="9.0", torch="2.11.0", driver="13000")


def row(case: str, peer: str, ms: float, **more: object) -> dict:
    group = peer if peer.startswith("engine") else "eager"
    return {
        "case": case, "label": peer, "group": group, "status": "ok", "reason": "", "median_ms": ms, **more
    }  # fmt: skip


@pytest.fixture
def step(monkeypatch, tmp_path):
    def outcome_of(rows_of):
        given = []

        def run(space: Workspace, name: str, command, *, share: float, **environment: str) -> Finished:
            given.append((command[3:], share))
            rows = rows_of(name)
            if rows:
                out = tmp_path / "engine" / name.removeprefix("engine-")
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{command[3]}-cuda.json").write_text(json.dumps({"rows": rows}))
            return Finished(0 if rows else 2, "Error: no such thing\n", False, tmp_path / f"{name}.log")

        monkeypatch.setattr(Workspace, "run", run)
        return run_step(engine.ENGINE, GPU, tmp_path), given

    return outcome_of


def test_every_command_has_its_share_and_every_case_its_line(step):
    outcome, given = step(
        lambda name: [row(name, "eager", 3.0), row(name, "graphs", 2.0), row(name, "engine", 1.0)]
    )
    assert (outcome.status, len(outcome.rows)) == (PASSED, 12)
    assert [command[0] for command, _ in given] == ["latency", "models", "models", "models"]
    assert [command[2] for command, _ in given[1:]] == ["0", "4", "7"]
    assert all(command[command.index("--device") + 1] == "cuda" for command, _ in given)
    # Shares of what is left: a fifth, then a third, a half, all of the rest.
    assert [share for _, share in given] == pytest.approx([0.2, 1 / 3, 1 / 2, 1])
    assert len(outcome.details) == 4
    assert outcome.details[0].split() == ["engine-latency", "engine", "1.000", "ms", "2.00x", "of", "graphs"]


def test_a_failure_of_the_engine_fails_the_step(step):
    bad = {"status": "FAIL", "reason": "error is 3 times what the contract allows"}
    outcome, _ = step(lambda name: [row(name, "eager", 3.0), row(name, "engine-uint8", 1.0, **bad)])
    assert outcome.status == FAILED
    assert outcome.details[0].endswith("FAIL: error is 3 times what the contract allows")


def test_a_peer_that_fails_does_not(step):
    outcome, _ = step(lambda name: [row(name, "eager", 3.0, status="error"), row(name, "engine", 1.0)])
    assert outcome.status == PASSED
    assert "x of" not in outcome.details[0]


def test_a_command_without_results_fails_and_the_others_are_kept(step, tmp_path):
    step(lambda name: [row(name, "engine", 1.0)])  # whose files are not this run's
    outcome, _ = step(lambda name: [] if name == "engine-b4" else [row(name, "engine", 1.0)])
    assert (outcome.status, len(outcome.rows)) == (FAILED, 3)
    assert outcome.details[0] == "b4: Error: no such thing; see engine-b4.log"


def test_nothing_measured(step):
    outcome, _ = step(lambda name: [])
    assert (outcome.status, outcome.rows) == (FAILED, [])
    assert outcome.summary.startswith("nothing was measured: latency: Error: no such thing")
