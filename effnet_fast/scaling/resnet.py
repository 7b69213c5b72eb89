"""Compound scaling of ResNet-50: the laws are not EfficientNet's own (table 3 of arXiv 1905.11946)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from effnet_fast.models.checks import integer
from effnet_fast.models.coefficients import round_channels, round_layers
from effnet_fast.models.formula import compound

if TYPE_CHECKING:
    from torch import nn

__all__ = ["scaled_resnet50"]

_LAYERS = (3, 4, 6, 3)  # bottlenecks of each stage of ResNet-50
_STEM = 64


def scaled_resnet50(phi: float, *, num_classes: int = 1000, **formula: float) -> tuple[nn.Module, int]:
    """torchvision's ResNet with the widths and depths of ResNet-50 scaled, and its resolution.

    Widths of the stem and of every stage are rounded to multiples of 8, depths up. At phi = 0 the model is
    torchvision's `resnet50`: the same parameters under the same names.

    Args:
        phi: any real number that `compound` takes.
        num_classes: outputs of the classifier.
        **formula: alpha, beta, gamma, base_resolution, resolution_divisor, as `compound` takes them.

    Returns: the model in training mode with new weights, for [N, 3, H, W] -> [N, num_classes], and the side
        of its images in pixels.

    Raises: ImportError without torchvision; what `compound` raises.

    Example:
        >>> model, resolution = scaled_resnet50(1)
    """
    integer("num_classes", num_classes, 1)
    coefficients = compound(phi, **formula)
    layers = [round_layers(count, coefficients.depth) for count in _LAYERS]
    model = _resnet_class()(layers, coefficients.width, num_classes)
    return model, coefficients.resolution


@cache
def _resnet_class() -> type[nn.Module]:
    """torchvision is optional, so its class is extended when it is asked for."""
    try:
        from torchvision.models.resnet import Bottleneck, ResNet
    except ImportError as error:
        raise ImportError("scaled_resnet50 needs torchvision: pip install torchvision") from error
    from torch import nn

    class ScaledResNet(ResNet):
        """ResNet whose stem and stages are `width` times as wide."""

        def __init__(self, layers: list[int], width: float, num_classes: int):
            self._width = width
            super().__init__(Bottleneck, layers, num_classes=num_classes)
            if self.fc.in_features != self.inplanes:
                self.fc = nn.Linear(self.inplanes, num_classes)

        def _make_layer(self, block, planes, *arguments, **more) -> nn.Sequential:
            stem = round_channels(_STEM, self._width)
            if self.conv1.out_channels != stem:  # the first stage: nothing is built on the stem yet
                self.inplanes = stem
                self.conv1 = nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False)
                self.bn1 = nn.BatchNorm2d(stem)
            return super()._make_layer(block, round_channels(planes, self._width), *arguments, **more)

    return ScaledResNet
