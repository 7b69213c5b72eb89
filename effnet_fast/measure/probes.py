"""Calls of this project's operators on shapes that one resource bounds: what ceilings are measured with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from effnet_fast import backends, ops

__all__ = ["LAUNCHES", "Probes", "has_fused_kernel"]

#: Calls of the kernel that is too short to be timed by itself.
LAUNCHES = 100

# Shapes whose maps and weights fit 1 MiB, a CPU core's own cache, in float32; 0.05 to 1 ms of one.
_MATRIX = {"images": 2, "channels": 256, "out": 256, "side": 14}
# 128 inputs are the most that CUDA has a kernel for; more would be composed of two.
_FUSED = {"images": 1, "channels": 128, "out": 1152, "side": 14}
_DEPTHWISE = {"images": 1, "channels": 96, "side": 28}
_SPECIAL = {"images": 2, "channels": 16, "out": 96, "side": 28}  # little to multiply for every SiLU


def has_fused_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `expand_depthwise` is one kernel there, and no composition of two."""
    chosen = backends.resolve("expand_depthwise", "auto", device_type=device.type, dtype=dtype)
    if chosen is backends.Backend.REFERENCE:
        return False
    return backends.has_kernel("expand_depthwise_into", chosen)


class Probes:
    """The calls for maps of `dtype` on `device`, and the rates that their times mean.

    `scale` times as many images as fit the cache of one CPU core.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, scale: int = 1) -> None:
        self._dtype, self._device, self._scale = dtype, device, scale
        self._pixel = self._pointwise(images=1, channels=8, out=8, side=1)

    def calls(self) -> dict[str, Callable[[], object]]:
        matrix, fused, depthwise, special = map(self._scaled, (_MATRIX, _FUSED, _DEPTHWISE, _SPECIAL))
        return {
            "matrix": self._pointwise(**matrix),
            "fused": self._expand_depthwise(**fused, activation="identity"),
            "depthwise 3": self._depthwise(**depthwise, kernel=3),
            "depthwise 5": self._depthwise(**depthwise, kernel=5),
            "without silu": self._expand_depthwise(**special, activation="identity"),
            "with silu": self._expand_depthwise(**special, activation="silu"),
        }

    def launches(self) -> None:
        """`LAUNCHES` calls that compute a single pixel."""
        for _ in range(LAUNCHES):
            self._pixel()

    def rates(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """matrix_macs, fused_macs, vector_macs and special, a second, from the `seconds` of every call."""
        matrix, fused, depthwise, special = (
            shape["images"] * shape["side"] ** 2 * shape.get("out", shape["channels"])
            for shape in map(self._scaled, (_MATRIX, _FUSED, _DEPTHWISE, _SPECIAL))
        )  # elements of their outputs
        # Both kernels of the family together: what a pixel costs besides its taps is part of the rate.
        taps = depthwise * (3**2 + 5**2)
        vector_macs = taps / (seconds["depthwise 3"] + seconds["depthwise 5"])
        # Noise must not make it negative: the expansion has 14 times the multiply-adds of the rest.
        expansion = max(seconds["fused"] - 3**2 * fused / vector_macs, seconds["fused"] / 2)
        # Where noise hides SiLU, it is less than a hundredth of its kernel.
        silu = max(seconds["with silu"] - seconds["without silu"], seconds["with silu"] / 100)
        return {
            "matrix_macs": matrix * _MATRIX["channels"] / seconds["matrix"],
            "fused_macs": fused * _FUSED["channels"] / expansion,
            "vector_macs": vector_macs,
            "special": 2 * special / silu,  # of the expanded map and of the filtered one, which is as large
        }

    def _scaled(self, shape: Mapping[str, int]) -> dict[str, int]:
        return {**shape, "images": self._scale * shape["images"]}

    def _pointwise(self, images: int, channels: int, out: int, side: int) -> Callable[[], None]:
        x, y = self._map(images, channels, side), self._map(images, out, side)
        weights = self._weights(out, channels, 1, 1), self._bias(out)
        call, packed = self._packed("pointwise_conv", weights, "identity")
        return lambda: call(y, x, packed, out, "identity", None, None)

    def _depthwise(self, images: int, channels: int, side: int, kernel: int) -> Callable[[], None]:
        x, y = self._map(images, channels, side), self._map(images, channels, side)
        weights = self._weights(channels, 1, kernel, kernel), self._bias(channels)
        call, packed = self._packed("depthwise_conv", weights, "identity")
        return lambda: call(y, x, packed, kernel, 1, [kernel // 2] * 4, "identity")

    def _expand_depthwise(
        self, images: int, channels: int, out: int, side: int, activation: str
    ) -> Callable[[], None]:
        x, y = self._map(images, channels, side), self._map(images, out, side)
        expand = self._weights(out, channels, 1, 1), self._bias(out)
        call, packed = self._packed(
            "expand_depthwise", (*expand, self._weights(out, 1, 3, 3), self._bias(out)), activation
        )
        return lambda: call(y, x, packed, out, activation, 3, 1, [1] * 4, activation)

    def _packed(self, op: str, weights: tuple[Tensor, ...], activation: str) -> tuple[Callable, Tensor]:
        backend = backends.resolve(op, "auto", device_type=self._device.type, dtype=self._dtype)
        packed = ops.pack(op, *weights, activation=activation, backend=backend)
        return ops.handle(op, "packed_into", backend), packed

    def _map(self, images: int, channels: int, side: int) -> Tensor:
        shape = (images, channels, side, side)
        return torch.full(shape, 0.5, dtype=self._dtype, device=self._device).contiguous(
            memory_format=torch.channels_last
        )

    def _weights(self, *shape: int) -> Tensor:
        return torch.full(shape, 0.5, dtype=self._dtype, device=self._device)

    def _bias(self, channels: int) -> Tensor:
        return torch.zeros(channels, dtype=torch.float32, device=self._device)
