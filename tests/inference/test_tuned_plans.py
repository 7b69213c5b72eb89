"""Measured blocks: files that round-trip or are refused, what is found for a call, how it is measured."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from effnet_fast.inference import BlockForm, EngineMemoryError, fold, network_layers
from effnet_fast.inference import measure_plans as measuring
from effnet_fast.inference.layers import block_operators
from effnet_fast.inference.measure_plans import measure_blocks
from effnet_fast.inference.tuned_plans import (
    DIRECTORY_VARIABLE,
    BlockShape,
    BlockTimes,
    TunedPlan,
    TunedPlanError,
    file_name,
    load_plan,
    save_plan,
    tuned_plan,
)

THREE, FUSED = BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED
CPU = torch.device("cpu")

SHAPE = BlockShape(24, 56, 56, 144, 24, 3, 1, 6, True)
PLAN = TunedPlan(
    "NVIDIA H200",
    (
        BlockTimes(SHAPE, 32, "float16", 40.0, 25.5),
        BlockTimes(SHAPE, 256, "float16", 320.0, 100.0),
        BlockTimes(dataclasses.replace(SHAPE, kernel=5), 32, "float16", 1.0, 2.0),
        BlockTimes(SHAPE, 32, "bfloat16", 3.0, 4.0),
    ),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_file_round_trips_and_is_found_by_its_device(folder):
    save_plan(folder / file_name("NVIDIA H200"), PLAN, {"torch": "2.11"})
    assert (folder / "nvidia-h200-plans.json").exists()
    assert tuned_plan("NVIDIA H200") == PLAN
    assert tuned_plan("NVIDIA A100-SXM4-80GB") is None
    assert json.loads((folder / "nvidia-h200-plans.json").read_text())["versions"] == {"torch": "2.11"}


def test_no_folder_is_an_error_and_no_variable_is_none(monkeypatch, tmp_path):
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    assert tuned_plan("a device that nobody measured") is None
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(TunedPlanError, match="missing: there is no such folder"):
        tuned_plan("a device that nobody measured")


def in_file(change) -> dict:
    document = {"schema": "effnet_fast.plans/1", "device": "NVIDIA H200", "versions": {}}
    document["entries"] = [json.loads(json.dumps(dataclasses.asdict(PLAN.entries[0])))]
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(schema="effnet_fast.tuned/1"), "schema is 'effnet_fast.tuned/1'"),
        (lambda d: d.update(device="NVIDIA A100"), "measured on 'NVIDIA A100', this is 'NVIDIA H200'"),
        (lambda d: d.update(entries={}), "it has no entries"),
        (lambda d: d["entries"][0].pop("images"), "BlockTimes has .* tune again"),
        (lambda d: d["entries"][0].update(more=1), "BlockTimes has .* tune again"),
        (lambda d: d["entries"][0].update(images=0), "images = 0"),
        (lambda d: d["entries"][0].update(images=1.5), "images = 1.5, expected int"),
        (lambda d: d["entries"][0].update(three_kernels=-1.0), "three_kernels = -1.0, expected float"),
        (lambda d: d["entries"][0].update(three_kernels="2"), "three_kernels = '2', expected float"),
        (lambda d: d["entries"][0].update(shape=[1]), r"shape = \[1\]"),
        (lambda d: d["entries"][0]["shape"].update(residual=1), "residual = 1, expected bool"),
        (lambda d: d["entries"][0]["shape"].pop("kernel"), "BlockShape has .* tune again"),
    ],
)
def test_files_that_cannot_be_trusted_are_refused_by_name(tmp_path, change, reason):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(in_file(lambda document: None)))
    assert load_plan(path, "NVIDIA H200").entries == PLAN.entries[:1]
    path.write_text(json.dumps(in_file(change)))
    with pytest.raises(TunedPlanError, match=f"plans.json: .*{reason}"):
        load_plan(path, "NVIDIA H200")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "plans.json"
    path.write_bytes(content)
    with pytest.raises(TunedPlanError, match=r"plans\.json"):
        load_plan(path, "NVIDIA H200")


def test_the_nearest_batch_within_a_factor_of_two_counts_in_proportion():
    found = PLAN.seconds(SHAPE, 32, torch.float16)
    assert found == {THREE: pytest.approx(40e-6), FUSED: pytest.approx(25.5e-6)}
    assert PLAN.seconds(SHAPE, 64, torch.float16)[THREE] == pytest.approx(80e-6)
    assert PLAN.seconds(SHAPE, 128, torch.float16)[FUSED] == pytest.approx(50e-6)  # of 256
    for images in (1, 15, 90, 513):
        assert PLAN.seconds(SHAPE, images, torch.float16) is None
    assert PLAN.seconds(SHAPE, 32, torch.bfloat16) == {THREE: pytest.approx(3e-6), FUSED: pytest.approx(4e-6)}
    assert PLAN.seconds(SHAPE, 32, torch.float32) is None
    assert PLAN.seconds(dataclasses.replace(SHAPE, residual=False), 32, torch.float16) is None


def test_blocks_are_timed_in_both_forms_by_their_shape(tiny):
    """Every step takes as many seconds as it has outputs; repeated blocks of a shape are one entry."""
    asked = []

    def timer(program, images):
        asked.append((len(program.passes), tuple(images.shape), images.dtype))
        logits = program.run(images)
        assert logits.shape == (3, 10)
        return {name: 1.0 + 0.5 * ("depthwise" in name) for step in program.passes for name in step.names}

    entries = measure_blocks(
        fold(tiny), (32, 32), images=3, dtype=torch.float32, device=CPU, backend="reference", timer=timer
    )
    assert len(asked) == 2
    assert {given[1:] for given in asked} == {((3, 3, 32, 32), torch.float32)}
    layers = network_layers(fold(tiny), (32, 32), forms=THREE)
    three = {group[0].block: group for group in block_operators(layers)}
    expanding = [BlockShape.of(three[name]) for name in three if name.startswith(("stages.1", "stages.2"))]
    assert {entry.shape for entry in entries} == set(expanding)
    assert len(entries) == len(set(expanding))
    for entry in entries:
        assert (entry.images, entry.dtype) == (3, "float32")
        # expand, depthwise and project; or the fused step, the gate and project.
        assert entry.three_kernels == pytest.approx(3.5e6)
        assert entry.expansion_fused == pytest.approx(3.5e6)


def test_real_times_are_positive(tiny):
    entries = measure_blocks(fold(tiny), (32, 32), images=2, dtype=torch.float32, device=CPU)
    assert entries
    assert all(0 < entry.three_kernels < 1e6 and 0 < entry.expansion_fused < 1e6 for entry in entries)


def test_what_does_not_fit_is_refused_before_anything_is_allocated(tiny, monkeypatch):
    monkeypatch.setattr(measuring, "allocate_arena", lambda *given: pytest.fail("allocated"))
    with pytest.raises(EngineMemoryError, match=r"32 x 32 images, three kernels needs .* would fit"):
        measure_blocks(fold(tiny), (32, 32), images=10**9, dtype=torch.float32, device=CPU)
