"""`effnet-fast info`, `models` and `--version`."""

import json

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
