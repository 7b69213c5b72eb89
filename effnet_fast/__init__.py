"""effnet_fast: fused kernels for EfficientNet-type networks.

- :class:`InferenceEngine`: images in, logits out, at the highest rate the device allows;
- :func:`create_model`, :func:`list_models`: the EfficientNet family as trainable PyTorch modules;
- :mod:`effnet_fast.scaling`: networks of any phi, and the largest within a budget;
- :mod:`effnet_fast.ops`: every fused operator as a function, with its equivalent PyTorch;
- :mod:`effnet_fast.nn`: the blocks that they are assembled into.
"""

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

__all__ = [
    "InferenceEngine",
    "__version__",
    "backends",
    "create_model",
    "list_models",
    "models",
    "native",
    "nn",
    "ops",
    "scaling",
]
