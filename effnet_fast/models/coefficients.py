"""The published coefficients of every scaled network, and the rounding of widths and depths."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "COEFFICIENTS",
    "LITE_COEFFICIENTS",
    "MOBILENETV2_COEFFICIENTS",
    "MOBILENETV2_DEEP_COEFFICIENTS",
    "V2_BASE_COEFFICIENTS",
    "Coefficients",
    "official",
    "round_channels",
    "round_layers",
]


@dataclass(frozen=True)
class Coefficients:
    """Multipliers of a base's width and depth, input resolution and dropout of one member of a family."""

    width: float
    depth: float
    resolution: int
    dropout: float


# https://github.com/tensorflow/tpu: `efficientnet_params` of models/official/efficientnet/
# These are not alpha**phi, beta**phi, gamma**phi of the paper for phi = 0..8; the table is what was trained.
COEFFICIENTS: dict[str, Coefficients] = {
    #                 width depth resolution dropout
    "b0": Coefficients(1.0, 1.0, 224, 0.2),
    "b1": Coefficients(1.0, 1.1, 240, 0.2),
    "b2": Coefficients(1.1, 1.2, 260, 0.3),
    "b3": Coefficients(1.2, 1.4, 300, 0.3),
    "b4": Coefficients(1.4, 1.8, 380, 0.4),
    "b5": Coefficients(1.6, 2.2, 456, 0.4),
    "b6": Coefficients(1.8, 2.6, 528, 0.5),
    "b7": Coefficients(2.0, 3.1, 600, 0.5),
    "b8": Coefficients(2.2, 3.6, 672, 0.5),
    "l2": Coefficients(4.3, 5.3, 800, 0.5),
}

# Same repository, efficientnet/lite/. Lite3 and Lite4 are 280 and 300 there, the sizes that match its
# published 1.44 and 2.64 billion multiply-adds; timm evaluates its copies of the weights at 300 and 380.
LITE_COEFFICIENTS: dict[str, Coefficients] = {
    "lite0": Coefficients(1.0, 1.0, 224, 0.2),
    "lite1": Coefficients(1.0, 1.1, 240, 0.2),
    "lite2": Coefficients(1.1, 1.2, 260, 0.3),
    "lite3": Coefficients(1.2, 1.4, 280, 0.3),
    "lite4": Coefficients(1.4, 1.8, 300, 0.3),
}

# https://github.com/google/automl: `efficientnetv2_params` of efficientnetv2/effnetv2_configs.py. The sizes
# are those of evaluation; training began smaller (192, 192, 208, 240).
V2_BASE_COEFFICIENTS: dict[str, Coefficients] = {
    "b0": Coefficients(1.0, 1.0, 224, 0.2),
    "b1": Coefficients(1.0, 1.1, 240, 0.2),
    "b2": Coefficients(1.1, 1.2, 260, 0.3),
    "b3": Coefficients(1.2, 1.4, 300, 0.3),
}

# The widths that timm has; 0.35, 0.5, 0.75, 1.0 and 1.4 are the paper's. Dropout is torchvision's.
MOBILENETV2_COEFFICIENTS: dict[str, Coefficients] = {
    "035": Coefficients(0.35, 1.0, 224, 0.2),
    "050": Coefficients(0.5, 1.0, 224, 0.2),
    "075": Coefficients(0.75, 1.0, 224, 0.2),
    "100": Coefficients(1.0, 1.0, 224, 0.2),
    "140": Coefficients(1.4, 1.0, 224, 0.2),
}
# timm's deeper ones, scaled as Lite is: stem, head and the depths of the first and the last stage are fixed.
MOBILENETV2_DEEP_COEFFICIENTS: dict[str, Coefficients] = {
    "110d": Coefficients(1.1, 1.2, 224, 0.2),
    "120d": Coefficients(1.2, 1.4, 224, 0.2),
}


def official(variant: str) -> Coefficients:
    """The published coefficients of "b0".."b8" or "l2" (also "B0", "efficientnet_b0", "tf_efficientnet_b0").

    Raises: TypeError for no string, ValueError for a variant that does not exist.
    """
    if not isinstance(variant, str):
        raise TypeError(f'variant must be a string such as "b0", got {type(variant).__name__}')
    key = variant.lower().replace("-", "_").removeprefix("tf_").removeprefix("efficientnet_")
    if key not in COEFFICIENTS:
        raise ValueError(f"variant must be one of {', '.join(COEFFICIENTS)}, got {variant!r}")
    return COEFFICIENTS[key]


def round_channels(channels: int, width: float, divisor: int = 8, *, limit: float = 0.9) -> int:
    """`channels * width`, rounded to the nearest multiple of `divisor` but never to less than `limit` of it.

    In B0..B8, L2 and Lite0..4 the last rule matters once, in stage 0 at width 1.2 (B3, Lite3):
    16 * 1.2 = 19.2, rounded to 16, raised to 24. EfficientNetV2 has no such rule (`limit=0`): B3 keeps 16.
    """
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < limit * scaled else rounded


def round_layers(layers: int, depth: float) -> int:
    """`layers * depth`, rounded up."""
    return math.ceil(layers * depth)
