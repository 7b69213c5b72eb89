"""What an engine accepts: its options, and the images of a call."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effnet_fast.models.efficientnet import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "ImageSpec",
    "resolve_dtype",
    "resolve_image_size",
    "resolve_normalisation",
]

INPUTS = ("float", "uint8")
LAYOUTS = ("NCHW", "NHWC")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_logger = logging.getLogger("effnet_fast")


@dataclass(frozen=True)
class ImageSpec:
    """The images that an engine takes.

    Attributes:
        channels, height, width: of one image.
        kind: "float" (already normalised) or "uint8" (0..255, normalised by the engine).
        layout: "NCHW" or "NHWC": the order of the dimensions, not of the memory.
        dtype: the engine's storage dtype.
        device: where the engine runs.
    """

    channels: int
    height: int
    width: int
    kind: str
    layout: str
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        check_kind(self.kind, self.layout)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def image_dtype(self) -> torch.dtype:
        """What an image usually is: uint8, or float32, which a 16-bit engine rounds in its stem."""
        return torch.uint8 if self.kind == "uint8" else torch.float32

    def check(self, images: Tensor) -> None:
        """Raise TypeError or ValueError, naming what was given and what is allowed, unless `images` fit."""
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
        if images.layout is not torch.strided:
            raise TypeError(f"images must be a dense tensor, got one with layout {images.layout}")
        if images.device.type == "meta":
            raise ValueError("images must have values, got a tensor on the meta device")
        if self.kind == "uint8":
            if images.dtype != torch.uint8:
                raise TypeError(
                    f'images must be uint8 for an engine with input="uint8", got {_name(images.dtype)}'
                )
        elif images.dtype not in DTYPES:
            hint = ': make the engine with input="uint8"' if images.dtype == torch.uint8 else ""
            raise TypeError(
                f'images must be {_names(DTYPES)} for an engine with input="float", '
                f"got {_name(images.dtype)}{hint}"
            )
        sizes = {"N": None, "C": self.channels, "H": self.height, "W": self.width}
        expected = [sizes[letter] for letter in self.layout]
        shape = list(images.shape)
        if len(shape) != 4 or shape[1:] != expected[1:]:
            wanted = ", ".join("N" if size is None else str(size) for size in expected)
            raise ValueError(f"images must have shape [{wanted}] ({self.layout}), got {shape}")

    def zeros(self, count: int) -> Tensor:
        """`count` images of nothing, as a caller would give them."""
        sizes = {"N": count, "C": self.channels, "H": self.height, "W": self.width}
        shape = [sizes[letter] for letter in self.layout]
        return torch.zeros(shape, dtype=self.image_dtype, device=self.device)

    def prepare(self, images: Tensor) -> Tensor:
        """`images`, checked before, as a logical NCHW view that the stem can read, on the engine's device."""
        if images.device != self.device:
            images = images.to(self.device)  # not asynchronously: the caller may overwrite pinned memory
        if images.dtype not in (torch.uint8, torch.float32, self.dtype):
            images = images.float()  # the other 16-bit type: exact in float32
        return images.permute(0, 3, 1, 2) if self.layout == "NHWC" else images


def check_kind(kind: str, layout: str) -> None:
    """ValueError unless `kind` is one of `INPUTS` and `layout` one of `LAYOUTS`."""
    for name, value, allowed in (("input", kind, INPUTS), ("layout", layout, LAYOUTS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def resolve_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    """`dtype`, or the default of the device: float16 on CUDA, float32 elsewhere."""
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        given = _name(dtype) if isinstance(dtype, torch.dtype) else repr(dtype)
        raise TypeError(f"dtype must be {_names(DTYPES)} or None, got {given}")
    return dtype


def resolve_image_size(image_size: int | tuple[int, int] | None, model: nn.Module) -> tuple[int, int]:
    """(height, width) from a side, a pair, or None: `model.preprocessing.size`."""
    if image_size is None:
        preprocessing = getattr(model, "preprocessing", None)
        if preprocessing is None:
            raise ValueError("image_size must be given for a model without `preprocessing`, got None")
        image_size = preprocessing.size
    return check_image_size(image_size)


def check_image_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from a side or a pair; ValueError for anything else."""
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(_is_positive(side) for side in sides):
        raise ValueError(
            f"image_size must be a positive integer or a pair of them (h, w), got {image_size!r}"
        )
    return int(sides[0]), int(sides[1])


def resolve_normalisation(
    kind: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    model: nn.Module,
    channels: int,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std, one number a channel in units of [0, 1]; (None, None) for float images."""
    if kind != "uint8":
        for name, value in (("mean", mean), ("std", std)):
            if value is not None:
                raise ValueError(
                    f'{name} applies to input="uint8" only (float images are normalised already), got {value}'
                )
        return None, None
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None and (mean is None or std is None):
        _logger.warning(
            "the model has no `preprocessing`: images are normalised with ImageNet's mean and std"
        )
    if mean is None:
        mean = IMAGENET_MEAN if preprocessing is None else preprocessing.mean
    if std is None:
        std = IMAGENET_STD if preprocessing is None else preprocessing.std
    return check_normalisation(mean, std, channels)


def check_normalisation(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both as tuples; ValueError or TypeError unless they have a number, std's above 0, for each channel.

    Numbers above 1 are refused: no mean and no standard deviation of [0, 1] is, but those of pixels 0..255
    are, and would be taken without a word for almost no contrast.
    """
    means, deviations = _numbers("mean", mean, channels), _numbers("std", std, channels)
    if any(not value > 0 for value in deviations):
        raise ValueError(f"std must be greater than 0 in every channel, got {std}")
    for name, numbers in (("mean", means), ("std", deviations)):
        if max(numbers) > 1:
            raise ValueError(
                f"{name} must be in units of [0, 1], at most 1, got {tuple(numbers)}: "
                "divide mean and std of pixels 0..255 by 255"
            )
    return tuple(means), tuple(deviations)


def check_positive(name: str, value: int) -> int:
    """Return `value`; TypeError unless it is an integer, ValueError unless it is at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _numbers(name: str, values: Sequence[float], channels: int) -> list[float]:
    numbers = values.tolist() if isinstance(values, Tensor) else values
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise TypeError(f"{name} must be a sequence of numbers, got {type(values).__name__}")
    if len(numbers) != channels or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
        raise ValueError(f"{name} must be {channels} finite numbers, one a channel, got {values}")
    return [float(n) for n in numbers]


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    *head, last = map(_name, dtypes)
    return f"{', '.join(head)} or {last}"
