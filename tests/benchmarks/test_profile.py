import io
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

import effnet_fast
from benchmarks import profile, profile_command, profile_tables
from benchmarks.commands import main
from benchmarks.profile import StepTime, group_of, shape_text
from benchmarks.results import load
from effnet_fast.inference.layers import Layer, Value
from effnet_fast.measure import Peaks
from effnet_fast.models import macs_by_kind

SIZE = 64
PEAKS = Peaks(fma_macs=1e9, dot_macs=2e9, silu=1e8)


@pytest.fixture(scope="module")
def steps(b0):
    engine = effnet_fast.InferenceEngine(b0, batch_size=3, image_size=SIZE)
    images = torch.randn(3, 3, SIZE, SIZE)
    return profile.profile_engine(engine, images, repeats=2), engine


def test_every_step_of_the_plan_has_its_time(steps):
    timed, engine = steps
    assert [step.name for step in timed[:-1]] == [layer.name for layer in engine.plan.layers]
    assert timed[-1].group == "host"
    assert all(step.milliseconds > 0 for step in timed[:-1])


def test_groups_cover_the_whole_call(steps):
    rows = profile_tables.group_rows(steps[0])
    assert [row["group"] for row in rows] == [
        name for name in profile.GROUPS if name in {r["group"] for r in rows}
    ]
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    steps_of = {row["group"]: row["steps"] for row in rows}
    # One for each block, whatever form the engine gives it.
    whole = steps_of.get("whole block", 0)
    assert steps_of.get("depthwise", 0) + steps_of.get("expand + depthwise", 0) + whole == 16
    assert steps_of.get("project", 0) + whole == 16
    assert sum(row["gmacs_share"] for row in rows) == pytest.approx(1.0)


def test_multiply_adds_are_those_of_the_model(steps, b0):
    by_kind = macs_by_kind(b0, SIZE)
    assert sum(step.gmacs for step in steps[0]) * 1e9 / 3 == pytest.approx(sum(by_kind.values()))
    stem = next(step for step in steps[0] if step.group == "stem")
    assert stem.gmacs * 1e9 / 3 == pytest.approx(by_kind["stem"])


def test_the_reference_cannot_be_told_apart_and_says_so(b0):
    engine = effnet_fast.InferenceEngine(b0, batch_size=1, image_size=32, backend="reference")
    with pytest.raises(profile.ProfileError, match="need a native backend"):
        profile.profile_engine(engine, torch.randn(1, 3, 32, 32), repeats=1)


def test_blocks_cover_the_whole_call(steps):
    rows = profile_tables.block_rows(steps[0])
    assert [row["block"] for row in rows] == [
        "stem", *dict.fromkeys(layer.block for layer in steps[1].plan.layers[1:-2]), "head", "classifier",
        "(host)",
    ]  # fmt: skip
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    assert sum(row["gmacs_share"] for row in rows) == pytest.approx(1.0)
    assert sum(row["steps"] for row in rows) == len(steps[0])


def test_the_ideal_of_a_call_is_the_work_of_the_model_at_the_peaks(b0):
    """SiLU and sigmoid are counted by running the model, multiply-adds by the model's own counts."""
    engine = effnet_fast.InferenceEngine(b0, batch_size=2, image_size=SIZE)
    timed = profile.profile_engine(engine, torch.randn(2, 3, SIZE, SIZE), repeats=1, peaks=PEAKS)
    evaluations = []
    hooks = [
        module.register_forward_hook(lambda module, given, result: evaluations.append(result.numel()))
        for module in b0.modules()
        if isinstance(module, (torch.nn.SiLU, torch.nn.Sigmoid))
    ]
    b0(torch.randn(2, 3, SIZE, SIZE))
    for hook in hooks:
        hook.remove()
    seconds = 2 * sum(macs_by_kind(b0, SIZE).values()) / 1e9 + sum(evaluations) / 1e8
    assert profile_tables.ideal_sum(timed) == pytest.approx(1e3 * seconds)
    rows = profile.rows("b0", "float32", 2, timed)
    assert rows[-1]["ideal_ms"] is rows[-1]["of_peak"] is None  # the host has nothing to compute
    assert rows[0]["of_peak"] == pytest.approx(timed[0].ideal_ms / timed[0].milliseconds, abs=1e-4)


def text_of(table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def test_shares_of_the_peak_are_of_sums_and_a_dash_without_peaks():
    known = [
        StepTime("a", "first", "stem", "x", "", 1, 4.0, 1.0, 1.0),
        StepTime("b", "second", "project", "x", "", 1, 2.0, 1.0, 1.5),
        StepTime("c", "second", "project", "x", "", 1, 4.0, 1.0, 1.5),
        StepTime("(host)", "(host)", "host", "", "", 1, 6.0, 0.0),
    ]
    printed = [line.split() for line in text_of(profile_tables.blocks_table(known)).splitlines()]
    lines = {words[1]: words for words in printed if words[0] in ("│", "├") and len(words) > 1}
    assert lines["first"][-4:-1:2] == ["1.000", "25%"]
    assert lines["second"][-4:-1:2] == ["3.000", "50%"]
    assert lines["(host)"][-4:-1:2] == ["-", "-"]
    assert lines["all"][-4:-1:2] == ["4.000", "25%"]
    unknown = [replace(step, ideal_ms=None) for step in known]
    for table in (profile_tables.steps_table, profile_tables.blocks_table):
        assert "%" in text_of(table(unknown))
        assert not any(line.rstrip(" │").endswith("%") for line in text_of(table(unknown)).splitlines())


def test_a_whole_block_is_one_step_of_its_own_kind():
    x, y = Value("x", (16, 8, 8)), Value("y", (24, 4, 4))
    layer = Layer(
        name="stages.1.0", block="stages.1.0", operator="mbconv", x=x, y=y, activation="silu", kernel=3,
        stride=2, expanded=96, expand_activation="silu",
    )  # fmt: skip
    assert group_of(layer) == "whole block"
    assert shape_text(layer) == "16>96>24 k3/2 @8x8"


@pytest.mark.parametrize("peaks", [PEAKS, None])
def test_the_command_prints_and_saves(tmp_path, monkeypatch, peaks):
    monkeypatch.setattr(profile_command, "cpu_peaks", lambda threads: peaks)
    arguments = [
        "profile",
        "--model",
        "efficientnet_lite0",
        "--batch",
        "1",
        "--repeats",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "where the time goes" in done.output
    assert ("1.0 GMAC/s in float32" if peaks else "of peak: unknown") in done.output
    rows = load(tmp_path / "profile-efficientnet_lite0-1-float32.json", kind="profile").rows
    assert {"stem", "head", "classifier", "host"} <= {row["group"] for row in rows}
    assert {"stages.0.0", "stages.6.0", "(host)"} <= {row["block"] for row in rows}
    done = CliRunner().invoke(main, ["profile", "--model", "resnet50"])
    assert done.exit_code == 2
    assert "resnet50" in done.output
