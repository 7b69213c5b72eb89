"""Whether a network's stem and first block are computed together on a GPU: a decision on predictions.

`stem_block_sums` and `stem_block` compute the stem and the depthwise convolution twice, once for the means
that the squeeze-excite needs and once behind its gates, and store neither of their maps. For a block of C
channels on a map of P pixels in 16 bits that saves 8 C P bytes an image (both maps written and read), 3.2 of
the 27.4 MB of B0, and costs, with the halo of its tiles, 2.6 more SiLU a value, one stem convolution and one
filter more. Both ways are predicted like every other form of a block (`gpu_cost.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch

from effnet_fast.inference.block_forms import BlockForm, starts_with_stem_block
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.gpu_cost import predict_on_gpu
from effnet_fast.inference.layers import Layer, network_layers
from effnet_fast.measure.gpu_rates import GpuRates

__all__ = ["StemChoice", "choose_stem_form", "has_stem_kernel"]

# As for other blocks (`gpu_cost._MARGIN`): it leans on rates that nobody has measured.
_MARGIN = 1.25

# Of the kernel: csrc/cuda/stem_block_launch.h, stem_block_is_fused().
_MOST_CHANNELS, _MOST_OUT_CHANNELS = 72, 48


@dataclass(frozen=True)
class StemChoice:
    """How stem and first block are computed, and why.

    Attributes:
        together: whether as `stem_block_sums` and `stem_block`.
        reason: in words.
        apart_seconds, together_seconds: predicted for both; None where there is nothing to choose.
    """

    together: bool
    reason: str
    apart_seconds: float | None = None
    together_seconds: float | None = None


def has_stem_kernel(network: FoldedNetwork, dtype: torch.dtype) -> bool:
    """Whether stem and first block of `network` are of the shapes that the CUDA kernel is made for."""
    if not starts_with_stem_block(network, BlockForm.WITH_STEM):
        return False
    stem, block = network.stem, network.blocks[0]
    return (
        dtype in (torch.float16, torch.bfloat16)
        and (stem.kernel, stem.stride, network.in_channels) == (3, 2, 3)
        and block.depthwise.kernel == 3
        and stem.out_channels % 8 == 0
        and stem.out_channels <= _MOST_CHANNELS
        and block.project.out_channels % 8 == 0
        and block.project.out_channels <= _MOST_OUT_CHANNELS
    )


def choose_stem_form(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    images: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    rates: GpuRates,
) -> StemChoice:
    """The faster way through stem and first block of `network` for `images` images at a time.

    Together, where the kernel is made for their shapes and is predicted faster by more than `_MARGIN`.
    """
    if not has_stem_kernel(network, dtype):
        return StemChoice(False, "no kernel for these shapes")

    def predicted(form: BlockForm) -> Prediction:
        layers = network_layers(network, image_size, forms={network.blocks[0].name: form})
        first = (layer for layer in layers if layer.block in ("stem", network.blocks[0].name))
        return reduce(add, (_predict(layer, images, dtype, image_dtype, rates) for layer in first))

    apart, together = (predicted(form) for form in (BlockForm.THREE_KERNELS, BlockForm.WITH_STEM))
    faster = _MARGIN * together.seconds < apart.seconds
    reason = f"predicted {1e6 * together.seconds:.0f} us together, {1e6 * apart.seconds:.0f} us apart"
    return StemChoice(faster, reason, apart.seconds, together.seconds)


def _predict(
    layer: Layer, images: int, dtype: torch.dtype, image_dtype: torch.dtype, rates: GpuRates
) -> Prediction:
    return predict_on_gpu(layer, images, dtype, image_dtype, rates)
