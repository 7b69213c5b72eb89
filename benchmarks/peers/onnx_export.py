"""The same network as an ONNX file, for the peers that read one."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

#: Versions of ONNX's operators: convolutions may be bfloat16 from 22 on, and runtimes know older ones best.
OPSETS = {torch.float32: 20, torch.float16: 20, torch.bfloat16: 22}

#: Names of the file's only input and output.
INPUT, OUTPUT = "images", "logits"


def export_onnx(model: nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write `model`, in eval mode, to `path` for images of exactly this shape and dtype.

    Args:
        model: [N, 3, H, W] -> logits [N, classes]; its weights have the dtype of the images.
        images: [N, 3, H, W] float32, float16 or bfloat16, contiguous, on the device of the model.
        path: of the file; what it holds is replaced.

    The exporter folds every batch norm into its convolution, and SAME padding, which depends on the size of
    the image, into numbers. (The older exporter that traces does not: it keeps the padding as arithmetic in
    the graph, which is wrong for odd sizes, because ONNX divides integers towards zero and Python downwards.)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside of PyTorch
        torch.onnx.export(
            model,
            (images,),
            path,
            dynamo=True,
            opset_version=OPSETS[images.dtype],
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )


def missing_packages(*names: str, hint: str = "`make peers` installs them") -> Callable[[str, str], str]:
    """For `Peer.missing`: a sentence naming those of the packages `names` that are not installed, and `hint`,
    which says where they come from.
    """

    def missing(device: str, model: str) -> str:
        absent = [name for name in names if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(absent)} ({hint})" if absent else ""

    return missing
