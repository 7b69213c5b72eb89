"""Exact parameters and multiply-adds of a network, from its configuration, without building or running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.efficientnet import EfficientNet

__all__ = ["Layer", "count_macs", "count_parameters", "layers", "macs_by_kind"]

POINTWISE = ("expand", "project", "head")


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer at a given input size.

    Attributes:
        name: of the module that holds it, as in `model.named_modules()`.
        kind: stem, expand, depthwise, dense, squeeze_excite, project, head or classifier; "dense" is the
            k x k convolution of a `FusedMBConv` or a `ConvBlock`.
        in_channels, out_channels, kernel_size, stride, groups: of the convolution.
        in_size, out_size: (h, w) of its input and output.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    groups: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]

    @property
    def macs(self) -> int:
        """Multiply-adds of one image; padding counted as work, elementwise operations not."""
        return self.out_size[0] * self.out_size[1] * self._weights

    @property
    def parameters(self) -> int:
        """Weights, and the bias or the batch norm's scale and shift."""
        has_norm = self.kind not in ("squeeze_excite", "classifier")
        return self._weights + self.out_channels * (2 if has_norm else 1)

    @property
    def _weights(self) -> int:
        return self.out_channels * (self.in_channels // self.groups) * self.kernel_size**2


def layers(
    model: EfficientNet | EfficientNetConfig, resolution: int | tuple[int, int] | None = None
) -> Iterator[Layer]:
    """Every layer of `model`, in order of use.

    `resolution` of the images is a side, (h, w), or None for the published size.
    """
    config = model.config if isinstance(model, EfficientNet) else model
    if not isinstance(config, EfficientNetConfig):
        raise TypeError(f"model must be an EfficientNet or an EfficientNetConfig, got {type(model).__name__}")
    size = _image_size(config.resolution if resolution is None else resolution)

    def conv(name, kind, in_channels, out_channels, kernel_size=1, stride=1, groups=1, in_size=None):
        in_size = size if in_size is None else in_size
        # Both padding modes give ceil(in / stride): k // 2 on either side of an odd kernel does as well.
        out_size = (-(-in_size[0] // stride), -(-in_size[1] // stride))
        return Layer(name, kind, in_channels, out_channels, kernel_size, stride, groups, in_size, out_size)

    stem = conv("stem.conv", "stem", config.in_chans, config.stem_channels, kernel_size=3, stride=2)
    yield stem
    size = stem.out_size
    for block in config.blocks():
        inner = block.expanded_channels
        k, stride = block.kernel_size, block.stride
        if block.kind == "conv":
            dense = conv(f"{block.name}.conv.conv", "dense", block.in_channels, block.out_channels, k, stride)
            yield dense
            size = dense.out_size
            continue
        if block.kind == "fused":
            dense = conv(f"{block.name}.expand.conv", "dense", block.in_channels, inner, k, stride)
            yield dense
            size = dense.out_size
        else:
            if block.expands:
                yield conv(f"{block.name}.expand.conv", "expand", block.in_channels, inner)
            depthwise = conv(
                f"{block.name}.depthwise.conv", "depthwise", inner, inner, k, stride, groups=inner
            )
            yield depthwise
            size = depthwise.out_size
        if block.squeeze_channels is not None:
            gate = f"{block.name}.squeeze_excite"
            yield conv(f"{gate}.reduce", "squeeze_excite", inner, block.squeeze_channels, in_size=(1, 1))
            yield conv(f"{gate}.expand", "squeeze_excite", block.squeeze_channels, inner, in_size=(1, 1))
        yield conv(f"{block.name}.project.conv", "project", inner, block.out_channels)
    yield conv("head.conv", "head", config.stages[-1].channels, config.head_channels)
    yield conv("classifier", "classifier", config.head_channels, config.num_classes, in_size=(1, 1))


def count_macs(
    model: EfficientNet | EfficientNetConfig, resolution: int | tuple[int, int] | None = None
) -> int:
    """Multiply-adds of one image through `model`: convolutions and linear layers (the field's "FLOPs").

    `resolution` is a side, (h, w), or None for the published size.
    """
    return sum(layer.macs for layer in layers(model, resolution))


def macs_by_kind(
    model: EfficientNet | EfficientNetConfig, resolution: int | tuple[int, int] | None = None
) -> dict[str, int]:
    """`count_macs` in parts: stem, pointwise, depthwise, dense, squeeze_excite, classifier."""
    kinds: Counter[str] = Counter()
    for layer in layers(model, resolution):
        kinds["pointwise" if layer.kind in POINTWISE else layer.kind] += layer.macs
    return dict(kinds)


def count_parameters(model: EfficientNet | EfficientNetConfig) -> int:
    """Trainable parameters of `model`."""
    return sum(layer.parameters for layer in layers(model))


def _image_size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    sides = resolution if isinstance(resolution, (tuple, list)) else (resolution, resolution)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(
            f"resolution must be a positive integer or a pair of them (h, w), got {resolution!r}"
        )
    return tuple(sides)
