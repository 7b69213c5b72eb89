"""Memory that a kernel takes for itself, outside of an engine's arena."""

from __future__ import annotations

import torch

from effnet_fast import backends
from effnet_fast.backends import Backend
from effnet_fast.inference.layers import Layer

__all__ = ["scratch_bytes"]


def scratch_bytes(layer: Layer, images: int, dtype: torch.dtype, threads: int) -> int:
    """Bytes of scratch memory that the kernel of `layer` takes for `images` images on `threads` threads.

    `mbconv` keeps what its depthwise convolution writes, and its sums, for the few images that it computes at
    a time: one a thread, or up to four where maps are small. `fused_mbconv` keeps the expanded channels of a
    hundred pixels and the input rows under them, a few hundred kilobytes a thread. The CPU backend says how
    much, for the active instruction set. The other kernels keep rows, some ten kilobytes, which count as
    none. A thread's scratch memory grows to the largest that it was asked for, and serves every later call,
    of whatever engine.

    Args:
        layer: one call of a plan.
        images: in the call, at least 1.
        dtype: of the maps.
        threads: that share the call, at least 1.
    """
    # Where a whole block is composed of other operators, these write maps that PyTorch allocates.
    if not (layer.is_whole_block and backends.has_kernel(f"{layer.operator}_into", Backend.CPU)):
        return 0
    channels, height, width = layer.x.shape
    convolution = (layer.kernel, layer.stride, layer.padding)
    if layer.operator == "fused_mbconv":
        return torch.ops.effnet_fast.fused_mbconv_scratch_bytes(
            images, channels, height, width, layer.expanded, *convolution, dtype, threads
        )
    return torch.ops.effnet_fast.mbconv_scratch_bytes(
        images,
        height,
        width,
        layer.expanded,
        layer.y.shape[0],
        *convolution,
        layer.squeeze > 0,
        dtype,
        threads,
    )
