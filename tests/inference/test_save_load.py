"""engine.save and InferenceEngine.load: the same logits, in another process, without the model."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import weakref

import pytest
import torch

from effnet_fast import InferenceEngine
from effnet_fast.inference import EngineFileError, fold
from effnet_fast.inference.storage import load_network, save_network

SIZE = 32


def make(model, **options) -> InferenceEngine:
    return InferenceEngine(model, **{"batch_size": 4, "image_size": SIZE, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": torch.bfloat16},
        {"input": "uint8", "layout": "NHWC"},
        {"input": "uint8", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)},
        {"image_size": (33, 30), "batch_size": 1},
        {"backend": "reference"},
    ],
    ids=str,
)
def test_a_loaded_engine_is_the_saved_one(tiny, tmp_path, options):
    engine = make(tiny, **options)
    engine.save(tmp_path / "tiny.engine")
    loaded = InferenceEngine.load(tmp_path / "tiny.engine", backend=options.get("backend", "auto"))
    assert repr(loaded) == repr(engine)
    assert loaded.preprocessing == tiny.preprocessing
    assert str(loaded.plan).splitlines()[0] == str(engine.plan).splitlines()[0]
    sizes = {"N": 5, "C": 3, "H": engine.image_size[0], "W": engine.image_size[1]}
    images = torch.rand([sizes[letter] for letter in options.get("layout", "NCHW")])
    if options.get("input") == "uint8":
        images = (255 * images).byte()
    assert torch.equal(loaded(images), engine(images))


_ELSEWHERE = """
import sys, torch, effnet_fast
engine = effnet_fast.InferenceEngine.load(sys.argv[1])
torch.save(engine(torch.load(sys.argv[2])), sys.argv[3])
"""


def test_a_fresh_process_gives_the_same_bits(tiny, tmp_path):
    engine = make(tiny)
    images = torch.randn(5, 3, SIZE, SIZE)
    engine.save(tmp_path / "engine")
    torch.save(images, tmp_path / "images")
    files = [str(tmp_path / name) for name in ("engine", "images", "logits")]
    subprocess.run([sys.executable, "-c", _ELSEWHERE, *files], check=True)
    assert torch.equal(torch.load(files[2]), engine(images))


def test_dtype_and_batch_size_may_differ(tiny, tmp_path):
    """The file has float32 weights: what is loaded in bfloat16 was rounded once, whatever saved it."""
    images = torch.randn(5, 3, SIZE, SIZE)
    for saved in (torch.float32, torch.bfloat16):
        make(tiny, dtype=saved).save(tmp_path / "engine")
        loaded = InferenceEngine.load(tmp_path / "engine", dtype=torch.float32, batch_size=3)
        assert (loaded.dtype, loaded.batch_size) == (torch.float32, 3)
        assert torch.equal(loaded(images), make(tiny)(images))
        low = InferenceEngine.load(tmp_path / "engine", dtype=torch.bfloat16)
        assert torch.equal(low(images), make(tiny, dtype=torch.bfloat16)(images))


def test_a_loaded_engine_saves_the_same(tiny, tmp_path):
    make(tiny).save(tmp_path / "first")
    InferenceEngine.load(tmp_path / "first").save(tmp_path / "second")
    (first, settings), (second, again) = (load_network(tmp_path / name) for name in ("first", "second"))
    assert settings == again
    for a, b in zip(first.convolutions(), second.convolutions(), strict=True):
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)


def test_weights_that_are_not_kept_are_freed_and_not_saved(tiny, tmp_path, monkeypatch):
    folded = []

    def watched(model):
        network = fold(model)
        folded.append(weakref.ref(network.classifier.weight))
        return network

    monkeypatch.setattr("effnet_fast.inference.engine.fold", watched)
    kept, freed = make(tiny), make(tiny, keep_weights=False)
    images = torch.randn(5, 3, SIZE, SIZE)
    assert torch.equal(freed(images), kept(images))
    assert torch.equal(freed.as_module()(images), kept(images))
    assert [weight() is None for weight in folded] == [False, True]
    assert freed.memory.saved_bytes == 0 < kept.memory.saved_bytes
    assert freed.memory.total_bytes == kept.memory.total_bytes
    assert freed.num_classes == 10
    with pytest.raises(
        RuntimeError, match=r"keep_weights=False cannot be saved: .* Make it with keep_weights=True"
    ):
        freed.save(tmp_path / "engine")
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_loaded_without_keeping_its_weights(tiny, tmp_path):
    engine = make(tiny)
    engine.save(tmp_path / "engine")
    loaded = InferenceEngine.load(tmp_path / "engine", keep_weights=False)
    images = torch.randn(5, 3, SIZE, SIZE)
    assert torch.equal(loaded(images), engine(images))
    assert loaded.memory.saved_bytes == 0
    with pytest.raises(RuntimeError, match="cannot be saved"):
        loaded.save(tmp_path / "again")
    with pytest.raises(TypeError, match="keep_weights must be True or False, got 'no'"):
        InferenceEngine.load(tmp_path / "engine", keep_weights="no")


def test_a_model_without_preprocessing(tiny, tmp_path):
    del tiny.preprocessing
    make(tiny, input="uint8").save(tmp_path / "engine")
    assert InferenceEngine.load(tmp_path / "engine").preprocessing is None


def test_bad_arguments_are_refused(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        InferenceEngine.load(tmp_path / "engine")
    make(tiny).save(tmp_path / "engine")
    with pytest.raises(TypeError, match="dtype must be float32, float16 or bfloat16 or None, got float64"):
        InferenceEngine.load(tmp_path / "engine", dtype=torch.float64)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        InferenceEngine.load(tmp_path / "engine", batch_size=0)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64"},
        {"dtype": 3},
        {"preprocessing": 7},
        {"preprocessing": {"size": 3}},
        {"extra": 1},
        {"layout": "CHWN"},
        {"batch_size": "4"},
        {"batch_size": 0},
        {"image_size": [32]},
        {"image_size": [32, "a"]},
        {"mean": "abc", "input": "uint8"},
        {"mean": [0.5], "std": [0.5], "input": "uint8"},
        {"mean": None, "input": "uint8"},
        {"mean": [0.5, 0.5, 0.5]},
    ],
    ids=str,
)
def test_settings_that_are_not_understood(tiny, tmp_path, change):
    """A right checksum over settings that make no engine: another program's file, or a later version's."""
    settings = {**make(tiny)._settings.to_json(), **change}
    save_network(tmp_path / "engine", fold(tiny), settings)
    with pytest.raises(EngineFileError, match="settings that are not understood"):
        InferenceEngine.load(tmp_path / "engine")


def test_every_setting_is_saved(tiny):
    settings = make(tiny)._settings
    assert set(settings.to_json()) == {field.name for field in dataclasses.fields(settings)}
