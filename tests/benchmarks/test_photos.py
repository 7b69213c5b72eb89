import json

import pytest
from click.testing import CliRunner

from benchmarks import photos
from benchmarks.commands import main
from benchmarks.results import load


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "ROUNDS", 3)
        patch.setattr(photos, "MIN_SECONDS", 0.0)
        return CliRunner().invoke(main, ["photos", "--out", str(folder)]), folder


def test_the_photographs_are_named_and_both_agree(ran):
    done, folder = ran
    assert done.exit_code == 0, done.output
    assert "same top-5 in the same order" in done.output
    rows = load(folder / "photos.json", kind="photos").rows
    assert len(rows) == 8 * 2 * photos.TOP
    first = {
        row["photograph"]: row["label"] for row in rows if row["rank"] == 1 and row["dtype"] == "float32"
    }
    assert first["coffee.png"] == "espresso"
    assert first["flower.jpg"] == "daisy"
    assert first["china.jpg"] == "palace"
    assert first["chelsea.png"] in ("tiger cat", "Egyptian cat")
    assert first["rocket.jpg"] == "missile"


def test_a_wrong_engine_fails_the_command(monkeypatch, tmp_path):
    import effnet_fast

    class Wrong(effnet_fast.InferenceEngine):
        def __call__(self, images):
            return super().__call__(images).roll(1, dims=1)

    monkeypatch.setattr(effnet_fast, "InferenceEngine", Wrong)
    monkeypatch.setattr(photos, "ROUNDS", 3)
    monkeypatch.setattr(photos, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(photos, "COMPARED_DTYPES", ("float32",))
    done = CliRunner().invoke(main, ["photos", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "FAIL" in done.output
    assert "disagree" in done.output
    rows = json.loads((tmp_path / "photos.json").read_text())["rows"]
    assert all(row["status"] == "FAIL" and row["images_per_second"] is None for row in rows)


def test_missing_photographs_are_named(monkeypatch):
    monkeypatch.setattr(photos, "PHOTOGRAPHS", (("no_such_package", "data", ("a.png",)),))
    done = CliRunner().invoke(main, ["photos"])
    assert done.exit_code == 2
    assert "the photographs of no_such_package are not installed" in done.output
