"""Which coefficients a registered model was scaled with."""

from __future__ import annotations

from dataclasses import dataclass

from effnet_fast.models.scaling import (
    COEFFICIENTS,
    LITE_COEFFICIENTS,
    MOBILENETV2_COEFFICIENTS,
    MOBILENETV2_DEEP_COEFFICIENTS,
    V2_BASE_COEFFICIENTS,
    Coefficients,
)

__all__ = ["Published", "published"]


@dataclass(frozen=True)
class Published:
    """`index` is the number in a model's name, None where that is no phi; `coefficients` are its table's."""

    index: int | None
    coefficients: Coefficients


def _table() -> dict[str, Published]:
    numbered = {
        **{f"efficientnet_{variant}": (variant, c) for variant, c in COEFFICIENTS.items()},
        **{f"efficientnet_{variant}": (variant, c) for variant, c in LITE_COEFFICIENTS.items()},
        **{f"efficientnetv2_{variant}": (variant, c) for variant, c in V2_BASE_COEFFICIENTS.items()},
    }
    table = {
        name: Published(int(variant[-1]) if variant != "l2" else None, coefficients)
        for name, (variant, coefficients) in numbered.items()
    }
    for variant, coefficients in (*MOBILENETV2_COEFFICIENTS.items(), *MOBILENETV2_DEEP_COEFFICIENTS.items()):
        table[f"mobilenetv2_{variant}"] = Published(None, coefficients)
    return table


_PUBLISHED = _table()


def published(name: str) -> Published | None:
    """The coefficients of model `name`; None for one that was not scaled (EfficientNetV2-S..XL)."""
    return _PUBLISHED.get(name.removeprefix("tf_"))
