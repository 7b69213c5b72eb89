"""effnet_fast: fused kernels for EfficientNet-type networks.

- :func:`fuse`: somebody's model of timm, torchvision or efficientnet_pytorch with faster blocks;
  :func:`fusion_report` says which, :func:`unfuse` takes it back;
- :class:`InferenceEngine`: images in, logits out, at the highest rate the device allows;
- :func:`create_model`, :func:`list_models`: the EfficientNet family as trainable PyTorch modules;
- :mod:`effnet_fast.scaling`: networks of any phi, and the largest within a budget;
- :mod:`effnet_fast.ops`: every fused operator as a function, with its equivalent PyTorch;
- :mod:`effnet_fast.nn`: the blocks that they are assembled into.
"""

from typing import TYPE_CHECKING

import torch

__version__ = "0.1.0"

_OLDEST_TORCH = "2.11"
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
    raise ImportError(
        f"effnet_fast {__version__} needs torch >= {_OLDEST_TORCH}, found torch {torch.__version__}"
    )

from effnet_fast import backends, models, native, nn, ops, scaling  # noqa: E402
from effnet_fast.inference import InferenceEngine  # noqa: E402
from effnet_fast.models import create_model, list_models  # noqa: E402

if TYPE_CHECKING:
    from effnet_fast.fusion import fuse, fusion_report, repack, unfuse

__all__ = [
    "InferenceEngine",
    "__version__",
    "backends",
    "create_model",
    "fuse",
    "fusion_report",
    "list_models",
    "models",
    "native",
    "nn",
    "ops",
    "repack",
    "scaling",
    "unfuse",
]

_FUSION = ("fuse", "fusion_report", "repack", "unfuse")


def __getattr__(name: str) -> object:
    """The functions of `effnet_fast.fusion`, imported when first asked for: 27 ms of every start else."""
    if name not in _FUSION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from effnet_fast import fusion

    globals().update({known: getattr(fusion, known) for known in _FUSION})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUSION})
