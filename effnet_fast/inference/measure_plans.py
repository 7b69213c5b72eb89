"""Measuring which form of each MBConv block is faster on the device at hand, for `tuned_plans`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from effnet_fast.backends import Backend
from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.capacity import require
from effnet_fast.inference.draft import draft
from effnet_fast.inference.folding import FoldedNetwork, on_host
from effnet_fast.inference.implementations import resolve_backends
from effnet_fast.inference.layers import block_operators, network_layers
from effnet_fast.inference.packing import pack_network
from effnet_fast.inference.program import Program, allocate_arena, bind
from effnet_fast.inference.step_times import step_seconds
from effnet_fast.inference.tuned_plans import BlockShape, BlockTimes

__all__ = ["measure_blocks"]

Timer = Callable[[Program, Tensor], Mapping[str, float]]


def measure_blocks(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    images: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str | Backend = "auto",
    timer: Timer = step_seconds,
) -> list[BlockTimes]:
    """Both forms of every MBConv block with an expansion, each timed inside a forward pass of its own form.

    Blocks of one shape are one entry, the median of them.

    Args:
        network: with its weights in memory; which, is of no importance.
        image_size: (height, width).
        images: at a time.
        dtype, device, backend: as of an engine.
        timer: program, images -> {layer name: seconds}.

    Raises: EngineMemoryError where so many images do not fit; RuntimeError for a backend that cannot serve.
    """
    network = on_host(network)
    samples: dict[BlockShape, dict[BlockForm, list[float]]] = {}
    shapes = _shapes(network, image_size)
    for form in (BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED):
        seconds = _block_seconds(network, image_size, form, images, dtype, device, backend, timer)
        for block, shape in shapes.items():
            samples.setdefault(shape, {}).setdefault(form, []).append(seconds[block])
    return [
        BlockTimes(
            shape=shape,
            images=images,
            dtype=str(dtype).removeprefix("torch."),
            three_kernels=1e6 * statistics.median(taken[BlockForm.THREE_KERNELS]),
            expansion_fused=1e6 * statistics.median(taken[BlockForm.EXPANSION_FUSED]),
        )
        for shape, taken in samples.items()
    ]


def _shapes(network: FoldedNetwork, image_size: tuple[int, int]) -> dict[str, BlockShape]:
    """{block: shape} of the blocks that have an expansion to fuse: those that differ in the two forms."""
    three = network_layers(network, image_size, forms=BlockForm.THREE_KERNELS)
    fused = network_layers(network, image_size, forms=BlockForm.EXPANSION_FUSED)
    expanding = {layer.block for layer in fused if layer.operator.startswith("expand_depthwise")}
    return {
        layers[0].block: BlockShape.of(layers)
        for layers in block_operators(three)
        if layers[0].block in expanding
    }


def _block_seconds(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    form: BlockForm,
    images: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str | Backend,
    timer: Timer,
) -> dict[str, float]:
    """{block: seconds} of one forward pass with all blocks in `form`."""
    drafted = draft(
        network,
        image_size,
        batch=images,
        dtype=dtype,
        image_dtype=dtype,
        device=device,
        backend=backend,
        forms=form,
    )
    height, width = image_size
    require(drafted.needed_bytes, images, device, f"{height} x {width} images, {form}")
    plan = drafted.plan(images)
    backends = resolve_backends(drafted.layers, backend, dtype, device)
    weights = pack_network(network, backends, dtype, device, forms=form)
    program = bind(plan, images, allocate_arena(plan, device), weights, backends, (None, None))
    # Noise: zeros would take less power, and so a higher clock.
    given = torch.randn(images, network.in_channels, height, width, device=device).to(dtype)
    with torch.inference_mode():
        measured = timer(program, given)
    seconds: dict[str, float] = {}
    for layer in plan.layers:
        seconds[layer.block] = seconds.get(layer.block, 0.0) + measured[layer.name]
    return seconds
