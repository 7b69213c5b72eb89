"""What an engine was asked for, as plain data: kept beside its weights when it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch

from effnet_fast.inference.inputs import (
    DTYPES,
    check_image_size,
    check_kind,
    check_normalisation,
    check_positive,
)
from effnet_fast.models.config import Preprocessing

__all__ = ["EngineSettings"]

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


@dataclass(frozen=True)
class EngineSettings:
    """Arguments of an engine, resolved: no default is left open.

    Attributes:
        batch_size, image_size, dtype, input, layout: as `InferenceEngine` takes them.
        mean, std: for "uint8", one number a channel; None for "float".
        preprocessing: how photographs become images, as the model said; None where it did not.
    """

    batch_size: int
    image_size: tuple[int, int]
    dtype: torch.dtype
    input: str
    layout: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    preprocessing: Preprocessing | None

    def to_json(self) -> dict[str, object]:
        """Numbers, strings, lists and dictionaries alone."""
        return {**asdict(self), "dtype": str(self.dtype).removeprefix("torch.")}

    def check(self, channels: int) -> None:
        """ValueError or TypeError unless an engine for images of `channels` could be asked for this."""
        check_positive("batch_size", self.batch_size)
        check_image_size(self.image_size)
        check_kind(self.input, self.layout)
        if self.input == "uint8":
            check_normalisation(self.mean, self.std, channels)
        elif self.mean is not None or self.std is not None:
            raise ValueError(f'mean and std apply to input="uint8" only, got {self.mean} and {self.std}')

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> EngineSettings:
        """The settings that `to_json` gave; ValueError for other names and for a dtype that there is not."""
        names = [field.name for field in fields(cls)]
        if sorted(data) != sorted(names):
            raise ValueError(f"engine settings must be {', '.join(names)}, got {', '.join(sorted(data))}")
        if data["dtype"] not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {data['dtype']!r}")
        preprocessing = data["preprocessing"]
        if preprocessing is not None:
            try:
                preprocessing = Preprocessing(**{key: _tuple(value) for key, value in preprocessing.items()})
            except (AttributeError, TypeError) as error:
                raise ValueError(f"preprocessing is not understood: {error}") from error
        return cls(
            **{
                **{name: _tuple(data[name]) for name in names},
                "dtype": _DTYPES[data["dtype"]],
                "preprocessing": preprocessing,
            }
        )


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
