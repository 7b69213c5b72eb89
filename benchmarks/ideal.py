"""The least time that a CPU's arithmetic allows a step: nothing loaded, nothing stored, no call made."""

from __future__ import annotations

import torch

from effnet_fast.inference.cost import work
from effnet_fast.inference.layers import Layer
from effnet_fast.measure.peaks import Peaks


def ideal_seconds(
    layer: Layer, images: int, dtype: torch.dtype, image_dtype: torch.dtype, peaks: Peaks
) -> float:
    """Multiply-adds and SiLU or sigmoid evaluations of `layer` at their peak rates, one after the other.

    Args:
        layer: of any plan: three kernels, expansion fused or a whole block.
        images: of one call.
        dtype, image_dtype: of the maps and of the images.
        peaks: of as many threads as compute.

    1x1 and dense convolutions count at the peak of `dtype` (of bfloat16 pairs where that is bfloat16),
    depthwise convolutions at that of float32, in which every kernel computes them, and so does a step whose
    input is always float32 (squeeze-excite by itself, the classifier). The two small layers of a
    squeeze-excite inside another step count as its matrix products do.
    """
    done = work(layer, images, dtype, image_dtype)
    matrix = peaks.matrix_macs(torch.float32 if layer.x.single else dtype)
    multiplied = (done.matrix_macs + done.fused_macs) / matrix + done.vector_macs / peaks.fma_macs
    return multiplied + done.special / peaks.silu


def share_of_peak(ideal: float | None, taken: float) -> float | None:
    """`ideal` over `taken`, in one unit; None where there is no ideal or nothing was done."""
    return ideal / taken if ideal and taken > 0 else None


def share_text(share: float | None) -> str:
    """What a column "of peak" shows."""
    return "-" if share is None else f"{share:.0%}"
