"""Names of ImageNet's 1000 classes, looked up in torchvision."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

__all__ = ["imagenet_classes"]


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names, in the order of the logits.

    torchvision's list is read without importing torchvision, which takes over a second and fails where its
    compiled part does not match torch.

    Raises: ImportError if torchvision is not installed or has no such list.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        raise ImportError("the names of ImageNet's classes come from torchvision: pip install torchvision")
    path = Path(package.submodule_search_locations[0]) / "models" / "_meta.py"
    try:
        spec = importlib.util.spec_from_file_location("torchvision_models_meta", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return tuple(module._IMAGENET_CATEGORIES)
    except (OSError, AttributeError) as error:
        raise ImportError(f"the installed torchvision has no list of ImageNet's classes in {path}") from error
