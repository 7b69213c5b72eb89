"""`effnet-fast info`, `models` and `--version`."""

import json
from types import SimpleNamespace

import torch

import effnet_fast
from tests.command import invoke


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
    assert len(record["gpus"]) == torch.cuda.device_count()


def test_info_tells_a_backend_from_a_gpu(monkeypatch):
    def broken(index):
        raise RuntimeError("driver too old\nand more")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "gpu          none that PyTorch sees\n" in invoke("info").stdout
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    gpu = SimpleNamespace(name="Some GPU", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert "gpu          Some GPU (compute capability 9.0)\n" in invoke("info").stdout
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    assert "gpu          not usable: driver too old\n" in invoke("info").stdout


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
