"""`effnet-fast info --plan` and `tune --plans`: plans for a GPU that is not there, and measured ones."""

from __future__ import annotations

import json
import time

import pytest
import torch

from effnet_fast import tune_command
from effnet_fast.inference.tuned_plans import (
    BlockShape,
    BlockTimes,
    TunedPlan,
    file_name,
    load_plan,
    save_plan,
)
from tests.command import invoke


@pytest.fixture
def no_gpu(monkeypatch):
    """Without a GPU nothing is measured; with one, a command that names no chip would measure it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def planned(*arguments) -> dict:
    done = invoke("info", "--plan", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_table_says_what_limits_every_block_and_that_it_predicts():
    done = invoke("info", "--plan", "efficientnet_b4", "--batch", 64, "--chip", "h200")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "efficientnet_b4, 380 x 380, batch 64, float16 on NVIDIA H200"
    rows = {line.split()[0]: line for line in reversed(lines) if line.startswith(" ") and line.strip()}
    assert {"stages.0.0", "stages.6.1", "head", "classifier", "all"} <= set(rows)
    assert "expansion fused" in rows["stages.1.0"]
    assert "three kernels" in rows["stages.6.0"]
    for unit in ("launch", "memory", "tensor", "fma", "special", "issue", "shared", "total", "bound", "MB"):
        assert unit in rows["block"]
    assert "nominal" in done.stdout
    assert "Prediction, not a measurement: " in lines[-1]
    assert lines[-1].endswith(" images/s")


@pytest.mark.parametrize(
    "arguments",
    [
        ("mobilenetv2_100", "--batch", 256, "--chip", "l4"),
        ("efficientnet_b0", "--batch", 64, "--chip", "h200"),
        ("efficientnet_b0", "--batch", 1, "--chip", "h200", "--dtype", "float32"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_a_table_says_how_the_stem_and_halves_of_the_batch_run_and_what_was_rejected(arguments):
    plan, done = planned(*arguments), invoke("info", "--plan", *arguments)
    lines = done.stdout.splitlines()
    head = next(n for n, line in enumerate(lines) if line.split()[:2] == ["blocks", "taken"])
    assert lines[head].split() == ["blocks", "taken", "µs", "bound", "instead", "of", "µs", "bound"]

    def words(seconds: float | None, bound: str | None) -> list[str]:
        return [] if seconds is None else [f"{1e6 * seconds:.1f}", bound]

    expected = []
    for choice in (plan["stem"], *plan["branches"]):
        ends = choice["first"], choice["last"]
        row = [ends[0], *(("to", ends[1]) if ends[0] != ends[1] else ()), *choice["taken"].split()]
        row += words(choice["predicted_seconds"], choice["bound"]) + choice["other"].split()
        expected.append(row + words(choice["other_seconds"], choice["other_bound"]))
    assert [line.split() for line in lines[head + 2 : head + 2 + len(expected)]] == expected
    rows = {line.split()[0]: line.split() for line in lines[:head] if line.startswith(" ") and line.strip()}
    for block in plan["blocks"]:
        form = (block["form"] or "").split()
        assert rows[block["block"]][1 : 2 + len(form)] == [*form, str(block["branches"])]
    inside = [block for block in plan["blocks"] if block["branches"] == 2]
    both = [choice for choice in plan["branches"] if choice["taken"] == "two branches"]
    assert bool(inside) == bool(both) == (arguments[0] == "mobilenetv2_100")
    gained = sum(choice["other_seconds"] - choice["predicted_seconds"] for choice in both)
    assert plan["predicted_seconds_with_branches"] == pytest.approx(plan["predicted_seconds"] - gained)
    rate = f"{plan['images'] / plan['predicted_seconds_with_branches']:,.0f} images/s"
    assert lines[-1].endswith(rate)
    assert ("in one branch" in lines[-1]) == bool(both)


def test_json_adds_up():
    plan = planned("efficientnet_b0", "--batch", 256, "--chip", "A100")
    assert (plan["model"], plan["image_size"], plan["images"]) == ("efficientnet_b0", 224, 256)
    assert (plan["chip"], plan["rates"], plan["dtype"]) == ("NVIDIA A100-SXM4-80GB", "nominal", "float16")
    total = sum(block["predicted_seconds"] for block in plan["blocks"])
    assert plan["predicted_seconds"] == pytest.approx(total)
    assert plan["predicted_images_per_second"] == pytest.approx(256 / total)
    for block in plan["blocks"]:
        assert max(block["parts"].values()) <= block["predicted_seconds"]
        assert block["bound"] in block["parts"]
        assert block["bytes"] > 0
    assert {block["reason"] for block in plan["blocks"]} == {"", "predicted", "only form"}


def test_dtypes_and_chips_change_the_plan():
    half, single = (
        planned("efficientnet_b0", "--chip", "h200", "--dtype", d) for d in ("float16", "float32")
    )
    assert half["predicted_seconds"] < single["predicted_seconds"]
    assert {block["form"] for block in single["blocks"]} == {None, "three kernels"}  # and no fused stem
    slower = planned("efficientnet_b0", "--chip", "l4")
    assert slower["predicted_seconds"] > 4 * half["predicted_seconds"]
    assert planned("tf_efficientnetv2_s", "--chip", "h200")["blocks"][1]["form"] is None


def test_without_a_gpu_the_default_is_nominal_and_says_so(no_gpu):
    plan = planned("efficientnet_b0")
    assert (plan["chip"], plan["rates"], plan["images"]) == ("NVIDIA H200", "nominal", 64)


def test_measured_blocks_are_taken_and_marked(tmp_path, monkeypatch):
    shape = BlockShape(16, 112, 112, 96, 24, 3, 2, 4, False)
    entries = (BlockTimes(shape, 64, "float16", 10.0, 20.0),)
    path = tmp_path / file_name("NVIDIA H200")
    save_plan(path, TunedPlan("NVIDIA H200", entries), {})
    monkeypatch.setenv("EFFNET_FAST_TUNED_DIR", str(tmp_path))
    blocks = {block["block"]: block for block in planned("efficientnet_b0", "--chip", "h200")["blocks"]}
    assert (blocks["stages.1.0"]["form"], blocks["stages.1.0"]["reason"]) == ("three kernels", "measured")
    assert "(measured)" in invoke("info", "--plan", "efficientnet_b0", "--chip", "h200").stdout
    # What was read is not read again; another folder is.
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / path.name).write_text("{")
    monkeypatch.setenv("EFFNET_FAST_TUNED_DIR", str(damaged))
    done = invoke("info", "--plan", "efficientnet_b0", "--chip", "h200")
    assert done.exit_code == 2
    assert "damaged file of measured blocks" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plan", "resnet50"), "no model is called 'resnet50'; see `effnet-fast models`"),
        (("--plan", "efficientnet_b0", "--chip", "h2000"), "chip must be one of h200, h100"),
        (("--plan", "efficientnet_b0", "--batch", "0"), "0 is not in the range"),
        (("--plan", "efficientnet_b0", "--batch", "many"), "'many' is not a valid integer"),
        (("--plan", "efficientnet_b0", "--dtype", "int8"), "'int8' is not one of"),
        (("--chip", "h200"), "--chip is for --plan MODEL"),
        (("--batch", "8"), "--batch is for --plan MODEL"),
    ],
)
def test_mistakes_are_told_and_exit_with_2(arguments, words):
    done = invoke("info", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_tuning_plans_needs_a_gpu(no_gpu):
    done = invoke("tune", "--plans", "efficientnet_b0")
    assert done.exit_code == 2
    assert "measures on a GPU" in done.stderr


def test_tuned_plans_are_written_and_added_to(tmp_path):
    asked = []

    def measure(network, size, *, images, dtype, device):
        asked.append((network.num_classes, size, images, dtype))
        shape = BlockShape(16, 112, 112, 96, 24, 3, 2, 4, False)
        name = str(dtype).removeprefix("torch.")
        return [BlockTimes(shape, images, name, 2.0, 1.0 + len(asked))]

    folder = tmp_path / "out"
    path = folder / file_name("NVIDIA H200")

    def tune(*batches, **options):
        given = (["efficientnet_b0"], batches, ["float16"], folder, torch.device("cpu"), "NVIDIA H200")
        return tune_command.tune_plans(*given, measure, **options)

    assert tune(1, 32)
    assert asked == [(1000, (224, 224), images, torch.float16) for images in (1, 32)]
    assert [entry.images for entry in load_plan(path, "NVIDIA H200").entries] == [1, 32]
    tune(32, 64)
    again = load_plan(path, "NVIDIA H200").entries
    assert [(entry.images, entry.expansion_fused) for entry in again] == [(1, 2.0), (32, 4.0), (64, 5.0)]
    assert not tune(128, deadline=time.monotonic())
    assert load_plan(path, "NVIDIA H200").entries == again
    assert tune(64, resume=False)
    assert [entry.images for entry in load_plan(path, "NVIDIA H200").entries] == [64]
    path.write_text("[]")
    with pytest.raises(tune_command._Refusal, match="schema is None"):
        tune(1)
