"""Times of both forms of MBConv blocks that were measured on a GPU, by device: they go before predictions.

One JSON file a device, `<device>-plans.json` in the package or in the folder that ``EFFNET_FAST_TUNED_DIR``
names, whose file wins. ``effnet-fast tune --plans`` writes it. A file that cannot be trusted is an error that
names it.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.layers import Layer
from effnet_fast.tuned_files import DIRECTORY_VARIABLE, TunedFiles

__all__ = [
    "DIRECTORY_VARIABLE",
    "BlockShape",
    "BlockTimes",
    "TunedPlan",
    "TunedPlanError",
    "file_name",
    "load_plan",
    "save_plan",
    "tuned_plan",
]

PACKAGED = Path(__file__).parent / "tuned"

#: How far the measured number of images may be from the one asked for, as |log2| of their ratio.
FARTHEST = 1.0

_FORMS = (BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED)


class TunedPlanError(ValueError):
    """A file of measured blocks that cannot be used; the message names the file and the reason."""


FILES = TunedFiles("effnet_fast.plans/1", "measured blocks", "-plans.json", TunedPlanError)


@dataclass(frozen=True)
class BlockShape:
    """What an MBConv block is looked up by: all that its time depends on but activations and padding.

    Attributes:
        channels, height, width: of its input.
        expanded, out_channels: of the depthwise convolution, and of its output.
        kernel, stride: of the depthwise convolution.
        squeeze: channels between the squeeze-excite layers; 0 without them.
        residual: whether its input is added at the end.
    """

    channels: int
    height: int
    width: int
    expanded: int
    out_channels: int
    kernel: int
    stride: int
    squeeze: int
    residual: bool

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> BlockShape:
        """Of the layers that a block has as three kernels."""
        channels, height, width = layers[0].x.shape
        depthwise = next(layer for layer in layers if layer.operator.startswith("depthwise"))
        return cls(
            channels, height, width, depthwise.y.shape[0], layers[-1].y.shape[0],
            depthwise.kernel, depthwise.stride, depthwise.squeeze, layers[-1].residual is not None,
        )  # fmt: skip


@dataclass(frozen=True)
class BlockTimes:
    """One measured block: microseconds of `images` images in each of its two forms, in maps of `dtype`."""

    shape: BlockShape
    images: int
    dtype: str
    three_kernels: float
    expansion_fused: float


@dataclass(frozen=True)
class TunedPlan:
    """What was measured on one kind of GPU."""

    device: str
    entries: tuple[BlockTimes, ...]

    def seconds(self, shape: BlockShape, images: int, dtype: torch.dtype) -> dict[BlockForm, float] | None:
        """{form: seconds for `images` images} of such a block; None where none was measured.

        Of the same shape and dtype, the nearest number of images within a factor of two, and its times in
        proportion.
        """
        name = _dtype_name(dtype)
        near = [
            (abs(math.log2(entry.images / images)), entry.images, entry)
            for entry in self.entries
            if entry.shape == shape and entry.dtype == name
        ]
        distance, _, entry = min(near, key=lambda found: found[:2], default=(math.inf, 0, None))
        if entry is None or distance > FARTHEST:
            return None
        scale = 1e-6 * images / entry.images
        return dict(zip(_FORMS, (scale * entry.three_kernels, scale * entry.expansion_fused), strict=True))


def tuned_plan(device: str) -> TunedPlan | None:
    """What was measured on a GPU that the driver calls `device`, read once; None where nothing was.

    Raises: TunedPlanError for a file that cannot be used, and for a folder that is not there.
    """
    return _tuned_plan(device, os.environ.get(DIRECTORY_VARIABLE))


@functools.cache
def _tuned_plan(device: str, given: str | None) -> TunedPlan | None:
    path = FILES.find(device, PACKAGED, given)
    return None if path is None else load_plan(path, device)


def file_name(device: str) -> str:
    """``NVIDIA H200`` gives ``nvidia-h200-plans.json``."""
    return FILES.name(device)


def save_plan(path: Path, plan: TunedPlan, versions: Mapping[str, str]) -> None:
    """Write `path`, which is replaced as a whole; an entry a line."""
    FILES.save(path, plan.device, versions, map(asdict, plan.entries))


def load_plan(path: Path, device: str) -> TunedPlan:
    """The file `path` of `device`.

    Raises: TunedPlanError: it is unreadable, not JSON, of another schema or device, or has an entry that this
        version does not write.
    """
    return TunedPlan(device, tuple(_entry(row, path) for row in FILES.load(path, device)))


def _entry(row: Any, path: Path) -> BlockTimes:
    values = _checked(BlockTimes, row, path)
    values["shape"] = BlockShape(**_checked(BlockShape, values["shape"], path))
    return BlockTimes(**values)


def _checked(kind: type, values: Any, path: Path) -> dict[str, Any]:
    """`values` as fields of `kind`: all of them, each a positive number, a flag, a name or a shape."""
    wanted = {field.name: field.type for field in fields(kind)}
    if not isinstance(values, dict) or set(values) != set(wanted):
        found = sorted(values) if isinstance(values, dict) else values
        raise TunedPlanError(f"{path}: {kind.__name__} has {found}, expected {sorted(wanted)}: tune again")
    for name, value in values.items():
        if not _CHECKS[wanted[name]](value) or (name == "images" and value < 1):
            raise TunedPlanError(f"{path}: {kind.__name__} has {name} = {value!r}, expected {wanted[name]}")
    return dict(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_CHECKS = {
    "int": lambda value: _is_number(value) and isinstance(value, int) and value >= 0,
    "float": lambda value: _is_number(value) and 0 < value < math.inf,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "BlockShape": lambda value: isinstance(value, dict),
}


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
