"""Networks of any phi: configurations and models."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace

from effnet_fast.models.checks import integer
from effnet_fast.models.config import EfficientNetConfig, MBConvConfig
from effnet_fast.models.efficientnet import EfficientNet
from effnet_fast.models.families import BASES
from effnet_fast.models.formula import ALPHA, BASE_RESOLUTION, BETA, GAMMA, compound, phi_limits
from effnet_fast.models.presets import scaled_config

__all__ = ["check_resolution", "limits_of", "model_for", "network_stride", "scaled_model_config"]

_STEM_STRIDE = 2
_FORMULA = {
    name: parameter.default
    for name, parameter in inspect.signature(compound).parameters.items()
    if name not in ("phi", "stride")
}


def scaled_model_config(
    phi: float,
    *,
    base: str = "efficientnet",
    base_stages: Sequence[MBConvConfig] | None = None,
    tensorflow: bool = False,
    num_classes: int = 1000,
    name: str | None = None,
    **formula: float,
) -> EfficientNetConfig:
    """The configuration of a base network scaled by `compound(phi, ...)`, without building it.

    Args:
        phi: any real number that `compound` takes; 0 is the base.
        base: "efficientnet" (B0), "efficientnet_lite", "efficientnetv2" (its B0), "mobilenetv2" or
            "mobilenetv2_deep".
        base_stages: rows to scale in the place of the base's own.
        tensorflow: SAME padding, and batch norm as published by TensorFlow (see `scaled_config`).
        num_classes: outputs of the classifier.
        name: of the configuration. None: such as "efficientnet_phi2.5", which `create_model` knows, or
            "efficientnet_phi7_gamma1.1", which it does not.
        **formula: alpha, beta, gamma, base_resolution, resolution_divisor and dropout, as `compound` takes
            them.

    Raises: what `compound` and `scaled_config` raise.

    Example:
        >>> scaled_model_config(2.5)
        >>> scaled_model_config(1, base="mobilenetv2", alpha=1.0, beta=1.4, gamma=1.0)
    """
    if unknown := sorted(set(formula) - set(_FORMULA)):
        raise TypeError(f"{unknown[0]} is no argument of compound scaling: use {', '.join(_FORMULA)}")
    coefficients = compound(phi, stride=stride_of_stages(_stages(base, base_stages)), **formula)
    if name is None:
        name = f"{'tf_' if tensorflow else ''}{base}_phi{_text(coefficients.phi)}"
        given = {key: formula[key] for key in _FORMULA if formula.get(key, _FORMULA[key]) != _FORMULA[key]}
        name += "".join(f"_{key}{_text(value)}" for key, value in given.items())
        name += "" if base_stages is None else "_own_rows"
    config = scaled_config(
        name,
        coefficients,
        base=base,
        base_stages=base_stages,
        tensorflow=tensorflow,
    )
    return replace(config, num_classes=num_classes)


def _text(value: float) -> str:
    """A number in a name, from which it can be read again exactly."""
    return repr(value).removesuffix(".0")


def model_for(phi: float, **scaling) -> EfficientNet:
    """A new model of `scaled_model_config(phi, **scaling)`, in training mode, on the default device."""
    return EfficientNet(scaled_model_config(phi, **scaling))


def limits_of(
    *,
    base: str = "efficientnet",
    base_stages: Sequence[MBConvConfig] | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base_resolution: int = BASE_RESOLUTION,
    **others,
) -> tuple[float, float]:
    """(least, most) phi that `scaled_model_config` takes with these arguments; `others` do not matter."""
    stride = stride_of_stages(_stages(base, base_stages))
    return phi_limits(alpha=alpha, beta=beta, gamma=gamma, base_resolution=base_resolution, stride=stride)


def _stages(base: str, base_stages: Sequence[MBConvConfig] | None) -> Sequence[MBConvConfig]:
    if base not in BASES:
        raise ValueError(f"base must be one of {', '.join(BASES)}, got {base!r}")
    return BASES[base].stages if base_stages is None else tuple(base_stages)


def stride_of_stages(stages: Sequence[MBConvConfig]) -> int:
    """Input over output size of a network with these stages behind the stride-2 stem."""
    return _STEM_STRIDE * math.prod(row.stride for row in stages)


def network_stride(config: EfficientNetConfig) -> int:
    """Input over output size: 32 for every published network. A smaller image leaves layers without a pixel
    of their own.
    """
    return stride_of_stages(config.stages)


def check_resolution(config: EfficientNetConfig, resolution: int | None) -> int:
    """The side of the images: `resolution`, or the configuration's; ValueError below the network's stride."""
    side = config.resolution if resolution is None else integer("resolution", resolution, 1)
    stride = network_stride(config)
    if side < stride:
        raise ValueError(f"resolution must be at least the network's stride of {stride}, got {side}")
    return side
