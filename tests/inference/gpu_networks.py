"""What tests of predictions for GPUs share: layers of published networks, and a GPU of known rates."""

from __future__ import annotations

import dataclasses
import functools

import torch

from effnet_fast.inference import BlockForm, FoldedNetwork, fold, network_layers
from effnet_fast.inference.layers import Layer, Value, block_operators
from effnet_fast.measure.chips import CHIPS
from effnet_fast.measure.gpu_rates import nominal_rates
from effnet_fast.models import create_model, model_config

THREE, FUSED = BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED

_CLOCKS = 132 * 1.75e9

#: An H200 as the published predictions of the fused kernel assume it: 4.3 TB/s of a copy, 1.75 GHz, mma.sync
#: at 0.62 of the tensor cores, 5.5 TB/s of L2; launches cost nothing.
ASSUMED = dataclasses.replace(
    nominal_rates(CHIPS["h200"]),
    memory_bytes=4.3e12,
    cache_bytes=5.5e12,
    tensor_macs=0.62 * 2048 * _CLOCKS,
    fma=128 * _CLOCKS,
    special=16 * _CLOCKS,
    issue=128 * _CLOCKS,
    shared_bytes=128 * _CLOCKS,
    launch_seconds=1e-15,
)


@functools.cache
def folded(name: str) -> FoldedNetwork:
    with torch.device("meta"):
        return fold(create_model(name).eval())


def image_size(name: str) -> tuple[int, int]:
    return (model_config(name).resolution,) * 2


@functools.cache
def blocks(name: str, form: BlockForm) -> dict[str, tuple[Layer, ...]]:
    """{block: its layers} of a network at its own resolution."""
    layers = network_layers(folded(name), image_size(name), forms=form)
    return {group[0].block: group for group in block_operators(layers)}


def expansion(
    channels: int,
    expanded: int,
    side: int,
    kernel: int,
    stride: int,
    *,
    padding: tuple[int, int, int, int] | None = None,
    pooled: bool = True,
    activation: str = "silu",
) -> Layer:
    """An `expand_depthwise` of a square map."""
    padding = (kernel // 2,) * 4 if padding is None else padding
    height = (side + padding[0] + padding[2] - kernel) // stride + 1
    width = (side + padding[1] + padding[3] - kernel) // stride + 1
    y = Value("y", (expanded, height, width))
    tiles = -(-height // 16) * -(-width // 16)
    return Layer(
        name="depthwise",
        block="block",
        operator="expand_depthwise_pool" if pooled else "expand_depthwise",
        x=Value("x", (channels, side, side)),
        y=y,
        activation=activation,
        kernel=kernel,
        stride=stride,
        padding=padding,
        sums=Value("sums", (expanded, tiles, 1), single=True) if pooled else None,
        expand_activation=activation,
    )
