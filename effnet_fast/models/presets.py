"""Configurations: of any coefficients (`scaled_config`), and of every published network (`CONFIGS`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from effnet_fast.models.checks import integer
from effnet_fast.models.coefficients import (
    COEFFICIENTS,
    LITE_COEFFICIENTS,
    MOBILENETV2_COEFFICIENTS,
    MOBILENETV2_DEEP_COEFFICIENTS,
    V2_BASE_COEFFICIENTS,
    Coefficients,
    round_channels,
    round_layers,
)
from effnet_fast.models.config import EfficientNetConfig, MBConvConfig, Preprocessing
from effnet_fast.models.families import BASES, V2_SIZES, Base, V2Size

__all__ = ["CONFIGS", "IMAGENET_MEAN", "IMAGENET_STD", "SCALED_FAMILIES", "scaled_config"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# base, first part of the names, coefficients by the rest of the name
SCALED_FAMILIES = (
    ("efficientnet", "efficientnet", COEFFICIENTS),
    ("efficientnet_lite", "efficientnet", LITE_COEFFICIENTS),
    ("efficientnetv2", "efficientnetv2", V2_BASE_COEFFICIENTS),
    ("mobilenetv2", "mobilenetv2", MOBILENETV2_COEFFICIENTS),
    ("mobilenetv2_deep", "mobilenetv2", MOBILENETV2_DEEP_COEFFICIENTS),
)
CROP_PADDING = 32  # TensorFlow evaluates the central size / (size + 32) of an image, for every resolution


def scaled_config(
    name: str,
    coefficients: Coefficients,
    *,
    base: str = "efficientnet",
    tensorflow: bool = False,
    base_stages: Sequence[MBConvConfig] | None = None,
) -> EfficientNetConfig:
    """The configuration of a base network whose widths and depths are multiplied and rounded.

    Args:
        name: of the configuration; any string.
        coefficients: multipliers, resolution and dropout; any, not the published ones alone.
        base: "efficientnet", "efficientnet_lite", "efficientnetv2" (of its B0), "mobilenetv2", or
            "mobilenetv2_deep", which keeps stem, head and the depths of the first and the last stage.
        tensorflow: SAME padding and the batch norm of the published training (eps 1e-3, momentum 0.01, V2's
            0.1). Else symmetric padding and PyTorch's own batch norm (eps 1e-5, momentum 0.1), with which
            timm's `efficientnet_*` and torchvision's B0..B4 weights were trained.
        base_stages: rows that are scaled in the place of the base's own.

    Raises: TypeError for coefficients of another type; ValueError, naming the argument, for a base that does
        not exist, a multiplier that is not positive and finite, a resolution below 1 or a bad dropout.

    Example:
        >>> scaled_config("wide_b0", Coefficients(width=1.5, depth=1.0, resolution=224, dropout=0.2))
    """
    if base not in BASES:
        raise ValueError(f"base must be one of {', '.join(BASES)}, got {base!r}")
    _check_coefficients(coefficients)
    rows = BASES[base] if base_stages is None else replace(BASES[base], stages=tuple(base_stages))
    return EfficientNetConfig(
        name=name,
        **_scaled(rows, coefficients),
        **_training(rows, tensorflow),
        drop_rate=coefficients.dropout,
        preprocessing=_preprocessing(coefficients.resolution, base, tensorflow),
    )


def _scaled(base: Base, coefficients: Coefficients) -> dict:
    """Every width and depth multiplied and rounded."""

    def width(channels: int) -> int:
        return round_channels(channels, coefficients.width, limit=base.rounding_limit)

    stages = [
        replace(row, channels=width(row.channels), layers=round_layers(row.layers, coefficients.depth))
        for row in base.stages
    ]
    stem, head = width(base.stem_channels), width(base.head_channels)
    if base.head_never_narrower:
        head = max(head, base.head_channels)
    if base.fixed_ends:
        stem, head = base.stem_channels, base.head_channels
        for end in (0, -1):
            stages[end] = replace(stages[end], layers=base.stages[end].layers)
    return {"stem_channels": stem, "stages": tuple(stages), "head_channels": head}


def _training(base: Base, tensorflow: bool) -> dict:
    return {
        "squeeze_ratio": base.squeeze_ratio,
        "activation": base.activation,
        "padding": "same" if tensorflow else "symmetric",
        "norm_eps": 1e-3 if tensorflow else 1e-5,
        "norm_momentum": base.tensorflow_momentum if tensorflow else 0.1,
        "drop_path_rate": base.drop_path_rate,
    }


def _preprocessing(size: int, base: str, tensorflow: bool) -> Preprocessing:
    """Published evaluation: central size / (size + 32), ImageNet's mean and standard deviation, bicubic.

    It belongs to the architecture, not to a checkpoint: weights that were trained for another size or
    normalisation (timm's own B1..B5, AdvProp's) need their own, assigned to `model.preprocessing`.

    TensorFlow's Lite weights were trained on (pixel - 127) / 128, hence 127/255 and 128/255 (timm
    approximates them by 0.5), and on bilinear resizing. At 224..260 pixels PIL's bicubic is closer than its
    bilinear to TensorFlow's bilinear, which does not widen its filter when it shrinks an image; so Lite0..2
    use bicubic, as timm does.
    """
    tf_lite = base == "efficientnet_lite" and tensorflow
    return Preprocessing(
        size=size,
        crop=size / (size + CROP_PADDING),
        interpolation="bilinear" if tf_lite and size >= 280 else "bicubic",
        mean=(127 / 255,) * 3 if tf_lite else IMAGENET_MEAN,
        std=(128 / 255,) * 3 if tf_lite else IMAGENET_STD,
    )


def _check_coefficients(coefficients: object) -> None:
    if not isinstance(coefficients, Coefficients):
        raise TypeError(f"coefficients must be Coefficients, got {type(coefficients).__name__}")
    for field in ("width", "depth"):
        value = getattr(coefficients, field)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"coefficients.{field} must be a number, got {type(value).__name__}")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"coefficients.{field} must be positive and finite, got {value}")
    integer("coefficients.resolution", coefficients.resolution, 1)


def _v2_size(variant: str, size: V2Size, tensorflow: bool) -> EfficientNetConfig:
    """EfficientNetV2-S, M, L, XL: evaluated on the whole image; TensorFlow's on (pixel - 127.5) / 127.5."""
    return EfficientNetConfig(
        name=f"{'tf_' if tensorflow else ''}efficientnetv2_{variant}",
        stem_channels=size.stem_channels,
        stages=size.stages,
        head_channels=BASES["efficientnetv2"].head_channels,
        **_training(BASES["efficientnetv2"], tensorflow),
        drop_rate=size.dropout,
        preprocessing=Preprocessing(
            size=size.resolution,
            crop=1.0,
            interpolation="bicubic",
            mean=(0.5,) * 3 if tensorflow else IMAGENET_MEAN,
            std=(0.5,) * 3 if tensorflow else IMAGENET_STD,
        ),
    )


def _published() -> Iterator[EfficientNetConfig]:
    *of_tensorflow, mobile, mobile_deep = SCALED_FAMILIES
    for tensorflow in (False, True):
        for family in of_tensorflow:
            yield from _scaled_family(*family, tensorflow)
        for variant, size in V2_SIZES.items():
            yield _v2_size(variant, size, tensorflow)
    for family in (mobile, mobile_deep):
        yield from _scaled_family(*family, tensorflow=False)


def _scaled_family(
    base: str, stem: str, table: dict[str, Coefficients], tensorflow: bool
) -> Iterator[EfficientNetConfig]:
    prefix = "tf_" if tensorflow else ""
    for variant, coefficients in table.items():
        yield scaled_config(f"{prefix}{stem}_{variant}", coefficients, base=base, tensorflow=tensorflow)


CONFIGS: dict[str, EfficientNetConfig] = {config.name: config for config in _published()}
