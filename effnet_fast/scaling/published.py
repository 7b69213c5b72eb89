"""Which coefficients a registered model was scaled with."""

from __future__ import annotations

from dataclasses import dataclass

from effnet_fast.models.coefficients import Coefficients
from effnet_fast.models.presets import SCALED_FAMILIES

__all__ = ["Published", "published"]


@dataclass(frozen=True)
class Published:
    """`index` is the number in a model's name, None where that is no phi; `coefficients` are its table's."""

    index: int | None
    coefficients: Coefficients


_PUBLISHED = {
    f"{stem}_{variant}": Published(
        int(variant[-1]) if stem != "mobilenetv2" and variant != "l2" else None, coefficients
    )
    for _, stem, table in SCALED_FAMILIES
    for variant, coefficients in table.items()
}


def published(name: str) -> Published | None:
    """The coefficients of model `name`; None for one that was not scaled (EfficientNetV2-S..XL)."""
    return _PUBLISHED.get(name.removeprefix("tf_"))
