"""What an EfficientNet is made of, as data: stages, blocks, hyper-parameters, preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effnet_fast.models.checks import integer
from effnet_fast.nn.activations import ACTIVATIONS
from effnet_fast.nn.drop_path import check_rate
from effnet_fast.nn.padding import check_padding_mode

__all__ = ["BLOCK_KINDS", "BlockConfig", "EfficientNetConfig", "MBConvConfig", "Preprocessing"]

# mbconv: 1x1 expansion, depthwise convolution, squeeze-excite, projection. fused: the expansion is a k x k
# convolution, in place of the 1x1 and the depthwise one. conv: a k x k convolution and nothing else.
BLOCK_KINDS = ("mbconv", "fused", "conv")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    Resize the shorter side to `resize` pixels, take the central `size` x `size` pixels, scale to [0, 1], then
    (x - mean) / std for each channel.

    Attributes:
        size: height and width of the input.
        crop: size / shorter side of the resized image.
        interpolation: "bicubic" or "bilinear".
        mean, std: one number a channel, in units of [0, 1].
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def resize(self) -> int:
        """Pixels of the shorter side before the central crop."""
        return round(self.size / self.crop)


@dataclass(frozen=True)
class MBConvConfig:
    """A row of a paper's table: `layers` blocks of one kind, of which the first has the stride.

    Attributes:
        expand: factor between the block's input and its inner width; 1: no expansion layer.
        kernel, stride: of the depthwise convolution, or of the k x k convolution that stands in its place.
        channels: the width that leaves the stage.
        layers: blocks.
        kind: "mbconv", "fused" (`FusedMBConv`; expand at least 2) or "conv" (`ConvBlock`; expand 1). Only
            "mbconv" has a squeeze-excite, where the network has one.

    Raises: TypeError or ValueError for a number that is no positive integer, an even kernel, another kind, or
        one that `expand` does not fit.
    """

    expand: int
    kernel: int
    stride: int
    channels: int
    layers: int
    kind: str = "mbconv"

    def __post_init__(self) -> None:
        for field in ("expand", "kernel", "stride", "channels", "layers"):
            integer(field, getattr(self, field), 1)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        if self.kind not in BLOCK_KINDS:
            raise ValueError(f"kind must be one of {', '.join(BLOCK_KINDS)}, got {self.kind!r}")
        if self.kind == "conv" and self.expand != 1:
            raise ValueError(f'expand must be 1 in a stage of kind "conv", got {self.expand}')
        if self.kind == "fused" and self.expand < 2:
            raise ValueError(
                f'expand must be at least 2 in a stage of kind "fused", got {self.expand}; '
                'the block without expansion is of kind "conv"'
            )


@dataclass(frozen=True)
class BlockConfig:
    """One block of a network: everything that its module needs, all widths resolved.

    Attributes:
        stage, index: its place.
        in_channels, expanded_channels, out_channels: widths; without expansion the first two are equal.
        kernel_size, stride: as in `MBConvConfig`.
        squeeze_channels: hidden width of the squeeze-excite, None for none.
        drop_path_rate: of stochastic depth.
        kind: "mbconv", "fused" or "conv".
    """

    stage: int
    index: int
    in_channels: int
    expanded_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    squeeze_channels: int | None
    drop_path_rate: float
    kind: str = "mbconv"

    @property
    def expands(self) -> bool:
        return self.expanded_channels != self.in_channels

    @property
    def name(self) -> str:
        """The block's place in the model's state dict."""
        return f"stages.{self.stage}.{self.index}"


@dataclass(frozen=True)
class EfficientNetConfig:
    """A complete network. Widths and depths are final: scaling happened before.

    Attributes:
        name: as in `list_models()`.
        stem_channels: width of the 3x3 stride-2 stem.
        stages: rows of the paper's table, at least one.
        head_channels: width of the 1x1 head.
        squeeze_ratio: hidden width of the squeeze-excite over the block's *input* channels; None for none.
            Stages of kind "fused" and "conv" have none in any case.
        activation: of every convolution but the projections.
        padding: "symmetric" or "same" (TensorFlow's).
        norm_eps: epsilon of every batch norm.
        norm_momentum: weight of a new batch in the running statistics (PyTorch's sense).
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth; block i of n has rate drop_path_rate * i / n.
        preprocessing: how its images are prepared; `preprocessing.size` is the published resolution.
        num_classes: outputs of the classifier.
        in_chans: channels of the image.

    Raises: TypeError or ValueError, naming the field, for a value outside its range.
    """

    name: str
    stem_channels: int
    stages: tuple[MBConvConfig, ...]
    head_channels: int
    squeeze_ratio: float | None
    activation: str
    padding: str
    norm_eps: float
    norm_momentum: float
    drop_rate: float
    drop_path_rate: float
    preprocessing: Preprocessing
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        for field in ("num_classes", "in_chans", "stem_channels", "head_channels"):
            integer(field, getattr(self, field), 1)
        if not self.stages:
            raise ValueError("stages must have at least one row, got none")
        check_padding_mode(self.padding)
        check_rate("drop_rate", self.drop_rate)
        check_rate("drop_path_rate", self.drop_path_rate)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        for field in ("mean", "std"):
            if len(getattr(self.preprocessing, field)) != self.in_chans:
                raise ValueError(
                    f"preprocessing.{field} must have one number for each of the {self.in_chans} channels, "
                    f"got {getattr(self.preprocessing, field)}"
                )

    @property
    def resolution(self) -> int:
        """The published input size."""
        return self.preprocessing.size

    def blocks(self) -> Iterator[BlockConfig]:
        """Every block, in order."""
        total = sum(row.layers for row in self.stages)
        done = 0
        in_channels = self.stem_channels
        for stage, row in enumerate(self.stages):
            for index in range(row.layers):
                yield BlockConfig(
                    stage=stage,
                    index=index,
                    in_channels=in_channels,
                    expanded_channels=in_channels * row.expand,
                    out_channels=row.channels,
                    kernel_size=row.kernel,
                    stride=row.stride if index == 0 else 1,
                    squeeze_channels=self._squeeze_channels(in_channels) if row.kind == "mbconv" else None,
                    drop_path_rate=self.drop_path_rate * done / total,
                    kind=row.kind,
                )
                in_channels = row.channels
                done += 1

    def _squeeze_channels(self, in_channels: int) -> int | None:
        return None if self.squeeze_ratio is None else max(1, int(in_channels * self.squeeze_ratio))
