import pytest
import torch
from click.testing import CliRunner

import effnet_fast
from benchmarks import profile
from benchmarks.commands import main
from benchmarks.results import load
from effnet_fast.models import macs_by_kind

SIZE = 64


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
    rows = profile.group_rows(steps[0])
    assert [row["group"] for row in rows] == [
        name for name in profile.GROUPS if name in {r["group"] for r in rows}
    ]
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    steps_of = {row["group"]: row["steps"] for row in rows}
    assert steps_of.get("depthwise", 0) + steps_of.get("expand + depthwise", 0) == 16  # one for each block
    assert steps_of["project"] == 16
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


def test_the_command_prints_and_saves(tmp_path):
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
    rows = load(tmp_path / "profile-efficientnet_lite0-1-float32.json", kind="profile").rows
    assert {"stem", "project", "head", "classifier", "host"} <= {row["group"] for row in rows}
    done = CliRunner().invoke(main, ["profile", "--model", "resnet50"])
    assert done.exit_code == 2
    assert "resnet50" in done.output
