import csv
import json

import pytest

from benchmarks.results import SCHEMA, ResultError, Results, load, save


@pytest.fixture
def results():
    rows = [
        {"case": "m/8/1/float32", "peer": "engine", "model": "m", "batch": 1, "images_per_second": 12.5},
        {"case": "m/8/1/float32", "peer": "eager-nchw", "model": "m", "batch": 1, "reason": "a, b"},
    ]
    return Results("models", {"cpu": "x"}, {"rounds": 3}, "python -m benchmarks models", rows)


def test_a_file_comes_back_as_it_was_and_the_csv_has_the_same_rows(results, tmp_path):
    path = tmp_path / "new" / "models.json"
    save(results, path)
    assert load(path, kind="models") == results
    rows = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert [row["peer"] for row in rows] == ["engine", "eager-nchw"]
    assert rows[0]["images_per_second"] == "12.5"
    assert rows[1]["reason"] == "a, b"
    assert sorted(file.name for file in path.parent.iterdir()) == ["models.csv", "models.json"]


def test_rows_of_the_same_case_and_peer_are_replaced(results):
    results.put([dict(results.rows[0], images_per_second=13.0)])
    assert len(results.rows) == 2
    assert results.rows[-1]["images_per_second"] == 13.0


def damage(document, how):
    if how == "edited":
        document["rows"][0]["images_per_second"] = 99.0
    elif how == "row missing":
        document["rows"].pop()
    elif how == "no rows":
        del document["rows"]
    elif how == "schema":
        document["schema"] = SCHEMA.replace("/1", "/2")
    elif how == "no settings":
        del document["settings"]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("edited", "rows do not match its checksum"),
        ("row missing", "rows do not match its checksum"),
        ("no rows", "it has no rows"),
        ("schema", "schema is 'effnet_fast.benchmarks/2'; allowed"),
        ("no settings", "it lacks 'settings'"),
    ],
)
def test_a_damaged_file_is_refused(results, tmp_path, how, words):
    path = tmp_path / "models.json"
    save(results, path)
    path.write_text(damage(json.loads(path.read_text()), how))
    with pytest.raises(ResultError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\x01", '"text"'])
def test_what_is_no_result_file_is_refused(tmp_path, text):
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"damaged|schema is None"):
        load(path)


def test_half_a_file_a_missing_one_and_another_kind_are_refused(results, tmp_path):
    path = tmp_path / "models.json"
    save(results, path)
    with pytest.raises(ResultError, match="kind 'models'; needed: 'photos'"):
        load(path, kind="photos")
    path.write_text(path.read_text()[:200])
    with pytest.raises(ResultError, match="damaged"):
        load(path)
    with pytest.raises(ResultError, match="no such result file"):
        load(tmp_path / "other.json")
