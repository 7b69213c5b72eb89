"""The networks that are scaled, and those that are not: rows of the papers' tables, as data.

Sources: Table 1 of https://arxiv.org/abs/1905.11946 (EfficientNet), `effnetv2_configs.py` of
https://github.com/google/automl (EfficientNetV2, https://arxiv.org/abs/2104.00298), Table 2 of
https://arxiv.org/abs/1801.04381 (MobileNetV2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from effnet_fast.models.config import MBConvConfig

__all__ = ["B0_STAGES", "BASES", "MOBILENETV2_STAGES", "V2_BASE_STAGES", "V2_SIZES", "Base", "V2Size"]


def _mbconv(expand: int, kernel: int, stride: int, channels: int, layers: int) -> MBConvConfig:
    return MBConvConfig(expand, kernel, stride, channels, layers)


def _fused(expand: int, kernel: int, stride: int, channels: int, layers: int) -> MBConvConfig:
    return MBConvConfig(expand, kernel, stride, channels, layers, "fused")


def _conv(kernel: int, stride: int, channels: int, layers: int) -> MBConvConfig:
    return MBConvConfig(1, kernel, stride, channels, layers, "conv")


# expand, kernel, stride, channels, layers. The comment is the stage's input size at 224 x 224.
B0_STAGES = (
    _mbconv(1, 3, 1, 16, 1),  #  112 x 112
    _mbconv(6, 3, 2, 24, 2),  #  112 x 112
    _mbconv(6, 5, 2, 40, 2),  #   56 x 56
    _mbconv(6, 3, 2, 80, 3),  #   28 x 28
    _mbconv(6, 5, 1, 112, 3),  #  14 x 14
    _mbconv(6, 5, 2, 192, 4),  #  14 x 14
    _mbconv(6, 3, 1, 320, 1),  #   7 x 7
)
MOBILENETV2_STAGES = (
    _mbconv(1, 3, 1, 16, 1),  #  112 x 112
    _mbconv(6, 3, 2, 24, 2),  #  112 x 112
    _mbconv(6, 3, 2, 32, 3),  #   56 x 56
    _mbconv(6, 3, 2, 64, 4),  #   28 x 28
    _mbconv(6, 3, 1, 96, 3),  #   14 x 14
    _mbconv(6, 3, 2, 160, 3),  #  14 x 14
    _mbconv(6, 3, 1, 320, 1),  #   7 x 7
)
# V2's early stages have k x k convolutions instead of depthwise ones, and no squeeze-excite.
V2_BASE_STAGES = (
    _conv(3, 1, 16, 1),  #        112 x 112
    _fused(4, 3, 2, 32, 2),  #    112 x 112
    _fused(4, 3, 2, 48, 2),  #     56 x 56
    _mbconv(4, 3, 2, 96, 3),  #    28 x 28
    _mbconv(6, 3, 1, 112, 5),  #   14 x 14
    _mbconv(6, 3, 2, 192, 8),  #   14 x 14
)


@dataclass(frozen=True)
class Base:
    """A network of width 1 and depth 1, and how its family is scaled.

    Attributes:
        stem_channels, stages, head_channels: at width 1 and depth 1.
        squeeze_ratio: hidden width of the squeeze-excite over the block's input; None for none.
        activation: of every convolution but the projections.
        drop_path_rate: of every member.
        tensorflow_momentum: of the batch norm, in PyTorch's sense, in the published training.
        rounding_limit: of `round_channels`.
        fixed_ends: stem and head keep their widths, the first and the last stage their depths.
        head_never_narrower: a width below 1 leaves the head as it is.
    """

    stem_channels: int
    stages: tuple[MBConvConfig, ...]
    head_channels: int
    squeeze_ratio: float | None
    activation: str
    drop_path_rate: float
    tensorflow_momentum: float = 0.01
    rounding_limit: float = 0.9
    fixed_ends: bool = False
    head_never_narrower: bool = False


_EFFICIENTNET = Base(
    stem_channels=32,
    stages=B0_STAGES,
    head_channels=1280,
    squeeze_ratio=0.25,
    activation="silu",
    drop_path_rate=0.2,  # every variant: "survival probability 0.8"
)
_MOBILENETV2 = Base(
    stem_channels=32,
    stages=MOBILENETV2_STAGES,
    head_channels=1280,
    squeeze_ratio=None,
    activation="relu6",
    drop_path_rate=0.0,
    head_never_narrower=True,
)
BASES: dict[str, Base] = {
    "efficientnet": _EFFICIENTNET,
    "efficientnet_lite": replace(_EFFICIENTNET, squeeze_ratio=None, activation="relu6", fixed_ends=True),
    "efficientnetv2": replace(
        _EFFICIENTNET, stages=V2_BASE_STAGES, tensorflow_momentum=0.1, rounding_limit=0.0
    ),
    "mobilenetv2": _MOBILENETV2,
    "mobilenetv2_deep": replace(_MOBILENETV2, fixed_ends=True),
}


@dataclass(frozen=True)
class V2Size:
    """A network of EfficientNetV2 that was searched for its size, not scaled from a base.

    `resolution` is that of evaluation; the training's was 300 for S and 384 for the others.
    """

    stem_channels: int
    stages: tuple[MBConvConfig, ...]
    resolution: int
    dropout: float


V2_SIZES: dict[str, V2Size] = {
    "s": V2Size(
        stem_channels=24,
        stages=(
            _conv(3, 1, 24, 2),
            _fused(4, 3, 2, 48, 4),
            _fused(4, 3, 2, 64, 4),
            _mbconv(4, 3, 2, 128, 6),
            _mbconv(6, 3, 1, 160, 9),
            _mbconv(6, 3, 2, 256, 15),
        ),
        resolution=384,
        dropout=0.2,
    ),
    "m": V2Size(
        stem_channels=24,
        stages=(
            _conv(3, 1, 24, 3),
            _fused(4, 3, 2, 48, 5),
            _fused(4, 3, 2, 80, 5),
            _mbconv(4, 3, 2, 160, 7),
            _mbconv(6, 3, 1, 176, 14),
            _mbconv(6, 3, 2, 304, 18),
            _mbconv(6, 3, 1, 512, 5),
        ),
        resolution=480,
        dropout=0.3,
    ),
    "l": V2Size(
        stem_channels=32,
        stages=(
            _conv(3, 1, 32, 4),
            _fused(4, 3, 2, 64, 7),
            _fused(4, 3, 2, 96, 7),
            _mbconv(4, 3, 2, 192, 10),
            _mbconv(6, 3, 1, 224, 19),
            _mbconv(6, 3, 2, 384, 25),
            _mbconv(6, 3, 1, 640, 7),
        ),
        resolution=480,
        dropout=0.4,
    ),
    "xl": V2Size(
        stem_channels=32,
        stages=(
            _conv(3, 1, 32, 4),
            _fused(4, 3, 2, 64, 8),
            _fused(4, 3, 2, 96, 8),
            _mbconv(4, 3, 2, 192, 16),
            _mbconv(6, 3, 1, 256, 24),
            _mbconv(6, 3, 2, 512, 32),
            _mbconv(6, 3, 1, 640, 8),
        ),
        resolution=512,
        dropout=0.4,
    ),
}
