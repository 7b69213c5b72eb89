"""Output sizes and output tensors: one set of functions for fakes, allocation, reference and engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .schemas import Operator, TensorSpec

POOL_TILE = 16


def conv_output_size(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Length of a convolution's output along one axis."""
    return (size + before + after - kernel) // stride + 1


def pool_tiles(height: int, width: int) -> int:
    """Second dimension of ``sums``: 16 x 16 tiles that cover a `height` x `width` map."""
    return ((height + POOL_TILE - 1) // POOL_TILE) * ((width + POOL_TILE - 1) // POOL_TILE)


def single_dtype(storage: torch.dtype) -> torch.dtype:
    """What is kept beside the activations (sums, gates, squeeze-excite) for a storage dtype."""
    return torch.float64 if storage == torch.float64 else torch.float32


def output_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [sizes[letter] for letter in spec.shape]


def output_dtype(spec: TensorSpec, storage: torch.dtype) -> torch.dtype:
    return storage if spec.kind == "storage" else single_dtype(storage)


def dense(row: Operator, variant: str, args: Sequence[Any]) -> list[Any]:
    """`args` with every input in the memory that kernels read: maps channels_last, the rest contiguous.

    Tensors that are so already are passed through; others are copied, here and nowhere else.
    """
    result = list(args)
    for position, is_map in row.dense_inputs[variant]:
        if result[position] is not None:
            result[position] = result[position].contiguous(
                memory_format=torch.channels_last if is_map else torch.contiguous_format
            )
    return result


def allocate(
    row: Operator, sizes: Mapping[str, int], storage: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Uninitialised outputs of `row`; maps are channels_last."""
    outputs = []
    for spec in row.outputs.values():
        is_map = len(spec.shape) == 4
        outputs.append(
            torch.empty(
                output_shape(spec, sizes),
                dtype=output_dtype(spec, storage),
                device=device,
                memory_format=torch.channels_last if is_map else torch.contiguous_format,
            )
        )
    return tuple(outputs)
