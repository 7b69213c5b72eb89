"""Whether a network's stem and first block are computed together on a GPU: a decision on predictions.

`stem_block_sums` and `stem_block` compute the stem and the depthwise convolution twice, once for the means
that the squeeze-excite needs and once behind its gates, and store neither of their maps. For a block of C
channels on a map of P pixels in 16 bits that saves 8 C P bytes an image (both maps written and read), 3.2 of
the 27.4 MB of B0, and costs, with the halo of its tiles, 2.6 more SiLU a value, one stem convolution and one
filter more. Both ways are predicted like every other form of a block (`gpu_cost.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from effnet_fast.inference.block_forms import BlockForm, starts_with_stem_block
from effnet_fast.inference.cost import Prediction
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.gpu_cost import MARGIN, predict_layers_on_gpu
from effnet_fast.inference.layers import network_layers
from effnet_fast.measure.gpu_rates import GpuRates

__all__ = ["StemChoice", "choose_stem_form", "has_stem_kernel"]

# Of the kernel: csrc/cuda/stem_block_launch.h, stem_block_is_fused().
_MOST_CHANNELS, _MOST_OUT_CHANNELS = 72, 48


@dataclass(frozen=True)
class StemChoice:
    """How stem and first block are computed, and why.

    Attributes:
        together: whether as `stem_block_sums` and `stem_block`.
        predicted: {form of the first block: prediction of it and the stem}, of `THREE_KERNELS` and
            `WITH_STEM`; empty where there is no kernel, hence nothing to choose.
    """

    together: bool
    predicted: Mapping[BlockForm, Prediction]


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

    Together, where the kernel is made for their shapes and is predicted faster by more than `MARGIN`, as for
    the other blocks.
    """
    if not has_stem_kernel(network, dtype):
        return StemChoice(False, {})
    name, predicted = network.blocks[0].name, {}
    for form in (BlockForm.THREE_KERNELS, BlockForm.WITH_STEM):
        layers = network_layers(network, image_size, forms={name: form})
        first = (layer for layer in layers if layer.block in ("stem", name))
        predicted[form] = predict_layers_on_gpu(first, images, dtype, image_dtype, rates)
    apart, together = predicted[BlockForm.THREE_KERNELS], predicted[BlockForm.WITH_STEM]
    return StemChoice(MARGIN * together.seconds < apart.seconds, predicted)
