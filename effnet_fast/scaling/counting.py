"""Exact cost of a configuration, without building or running it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.counts import count_macs, count_parameters
from effnet_fast.models.networks import check_resolution
from effnet_fast.scaling.traffic import activation_bytes

__all__ = ["Counts", "count"]


@dataclass(frozen=True)
class Counts:
    """Cost of one image.

    Attributes:
        macs: multiply-adds of convolutions and linear layers (the field's "FLOPs").
        parameters: trainable ones, of the whole network.
        activation_bytes: {plan: bytes of activations that are read and written}, see `activation_bytes`.
        resolution: side of the image.
        dtype: of the activations.
    """

    macs: int
    parameters: int
    activation_bytes: dict[str, int]
    resolution: int
    dtype: torch.dtype


def count(
    config: EfficientNetConfig, resolution: int | None = None, *, dtype: torch.dtype = torch.float16
) -> Counts:
    """Multiply-adds, parameters and activation bytes of `config`, exactly; milliseconds for any network.

    Args:
        config: of any member of the family, published or not.
        resolution: side of the images; None for the configuration's.
        dtype: in which activations are stored.

    Raises: TypeError for another type of `config` or `dtype`, ValueError for a resolution below the network's
        stride.
    """
    if not isinstance(config, EfficientNetConfig):
        raise TypeError(f"config must be an EfficientNetConfig, got {type(config).__name__}")
    side = check_resolution(config, resolution)
    return Counts(
        macs=count_macs(config, side),
        parameters=count_parameters(config),
        activation_bytes=activation_bytes(config, side, dtype=dtype),
        resolution=side,
        dtype=dtype,
    )
