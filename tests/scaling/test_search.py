"""Grid search: every point of the grid, the best of them, interruption, and damaged files."""

from __future__ import annotations

import itertools
import json

import pytest

from effnet_fast.models import count_macs
from effnet_fast.scaling import compound, grid_points, grid_search, scaled_model_config

COARSE = {"step": 0.1, "tolerance": 0.02, "progress": False}


def preference(config) -> float:
    """Highest for the paper's own triple: a stand-in for an accuracy."""
    wanted = compound(1)
    return -abs(config.resolution - wanted.resolution) - 0.01 * abs(count_macs(config) / 8.5e8 - 1)


def test_the_grid_is_all_there_is():
    axis = [round(1 + 0.1 * index, 9) for index in range(12)]
    expected = [
        triple
        for triple in itertools.product(axis, axis, axis)
        if abs(triple[0] * triple[1] ** 2 * triple[2] ** 2 / 2 - 1) <= 0.05 + 1e-9
    ]
    assert grid_points(step=0.1) == expected
    assert expected == sorted(expected)


def test_the_papers_triple_is_on_the_default_grid():
    assert (1.2, 1.1, 1.15) in grid_points()
    assert all(0.95 <= a * b**2 * g**2 / 2 <= 1.05 for a, b, g in grid_points())


def test_the_best_of_every_point():
    asked = []

    def score(config):
        asked.append(config)
        return preference(config)

    found = grid_search(score, step=0.05, tolerance=0.05, progress=False)
    triples = [(point.alpha, point.beta, point.gamma) for point in found.points]
    assert triples == grid_points()
    assert [point.config for point in found.points] == asked
    for point in found.points:
        alpha, beta, gamma = point.alpha, point.beta, point.gamma
        assert point.config == scaled_model_config(1, alpha=alpha, beta=beta, gamma=gamma)
        assert point.macs == count_macs(point.config)
        assert point.product == alpha * beta**2 * gamma**2
        assert point.score == preference(point.config)
    assert found.best.score == max(point.score for point in found.points)
    assert found.best.config.resolution == compound(1).resolution


def test_of_equal_scores_the_first_wins():
    found = grid_search(lambda config: 1, **COARSE)
    assert found.best == found.points[0]


def test_phi_and_base_are_passed_on():
    found = grid_search(
        lambda config: config.stages[0].channels, phi=2, base="mobilenetv2", base_resolution=64, **COARSE
    )
    for point in found.points:
        assert point.config == scaled_model_config(
            2, base="mobilenetv2", base_resolution=64, alpha=point.alpha, beta=point.beta, gamma=point.gamma
        )


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_search_goes_on(tmp_path, after):
    file = tmp_path / "deeper" / "grid.json"
    whole = grid_search(preference, **COARSE)
    asked = []

    def score(config):
        if len(asked) == after:
            raise KeyboardInterrupt
        asked.append(config)
        return preference(config)

    with pytest.raises(KeyboardInterrupt):
        grid_search(score, file=file, **COARSE)
    asked_again = []
    resumed = grid_search(
        lambda config: asked_again.append(config) or preference(config), file=file, **COARSE
    )
    assert resumed == whole
    assert [*asked, *asked_again] == [point.config for point in whole.points]

    def nothing_is_left(config):
        raise AssertionError("scored again")

    assert grid_search(nothing_is_left, file=file, **COARSE) == whole
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"step": 0.2, "tolerance": 0.1}, "step"),
        ({"label": "other"}, "label"),
        ({"phi": 2}, "phi"),
        ({"base": "mobilenetv2"}, "scaling"),
        ({"constraint": 2.1, "tolerance": 0.05}, "constraint"),
    ],
)
def test_a_file_of_other_settings_is_refused(tmp_path, change, named):
    file = tmp_path / "grid.json"
    grid_search(preference, file=file, **COARSE)
    before = file.read_text()
    with pytest.raises(ValueError, match=f"grid.json belongs to a search with other settings: .*{named}"):
        grid_search(preference, file=file, **{**COARSE, **change})
    assert file.read_text() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace('"score"', '"points"', 1),
        lambda text: text.replace("grid search 1", "grid search 9"),
        lambda text: json.dumps({**json.loads(text), "points": [{"alpha": 1, "beta": 1, "gamma": 1}]}),
        lambda text: text.replace('"score": -', '"score": NaN, "old": -', 1),
        lambda text: "\x80\x81",
        lambda text: "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, damage):
    file = tmp_path / "grid.json"
    grid_search(preference, file=file, **COARSE)
    file.write_text(damage(file.read_text()), encoding="latin-1")
    with pytest.raises(ValueError, match="grid.json is damaged or no file of a grid search"):
        grid_search(preference, file=file, **COARSE)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"step": 0}, ValueError, "step must be"),
        ({"step": -0.1}, ValueError, "step must be"),
        ({"constraint": 0.5}, ValueError, "constraint must be"),
        ({"tolerance": 2.0}, ValueError, "tolerance must be"),
        ({"step": 0.9, "tolerance": 0.01}, ValueError, "no point of the grid with step=0.9 is within 1.0%"),
        ({"alpha": 1.2}, TypeError, "alpha is what is searched"),
        ({"phi": float("nan")}, ValueError, "phi must be"),
        ({"phi": 0}, ValueError, "phi must not be 0: every alpha, beta and gamma gives the base"),
        ({"phi": 40}, ValueError, "phi must be from"),
        ({"widht": 2}, TypeError, "widht is no argument"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_scored(options, error, words):
    def score(config):
        raise AssertionError("scored")

    with pytest.raises(error, match=words):
        grid_search(score, **{**COARSE, **options})


def test_a_file_that_cannot_be_written_is_known_before_anything_is_scored(tmp_path):
    def score(config):
        raise AssertionError("scored")

    (tmp_path / "grid.json.part").mkdir()
    for file in (tmp_path, tmp_path / "grid.json"):
        with pytest.raises(OSError, match="irectory"):
            grid_search(score, file=file, **COARSE)


def test_no_point_of_a_large_constraint_is_beyond_the_formula():
    found = grid_search(lambda config: 1, constraint=16, step=0.5, tolerance=0.1, progress=False)
    assert max(max(point.alpha, point.beta, point.gamma) for point in found.points) == 4


@pytest.mark.parametrize(
    ("score", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), ("best", TypeError)]
)
def test_a_score_that_is_no_number_is_refused_and_not_kept(tmp_path, score, error):
    file = tmp_path / "grid.json"
    with pytest.raises(error, match="the score must be"):
        grid_search(lambda config: score, file=file, **COARSE)
    assert not file.exists()
    with pytest.raises(TypeError, match="score must be callable"):
        grid_search(3.0)
