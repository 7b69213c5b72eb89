"""The worked example: its committed result belongs to it, and its training learns."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from effnet_fast.scaling import scaled_model_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "grid_search.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("grid_search_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_result_is_complete_and_resumed(example, tmp_path, monkeypatch):
    def trained(config):
        raise AssertionError(f"{config.name} is missing from the committed result")

    monkeypatch.setattr(example, "score", trained)
    file = tmp_path / "grid_search.json"
    shutil.copy(EXAMPLE.with_suffix(".json"), file)
    found = example.search(file)
    assert (found.best.alpha, found.best.beta, found.best.gamma) == (1.0, 1.2, 1.2)  # as docs/scaling.md says
    assert all(0.9 < point.score < 1 for point in found.points)


def test_training_learns_and_is_seeded(example, threads, monkeypatch):
    threads(1)
    monkeypatch.setattr(example, "EPOCHS", 2)
    config = scaled_model_config(0, **example.NETWORK)
    small = replace(config, stages=tuple(replace(row, layers=1) for row in config.stages))
    first = example.accuracy(small, seed=0)
    assert first > 0.5  # of ten classes
    assert example.accuracy(small, seed=0) == first
