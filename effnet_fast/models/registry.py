"""Models by name."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Mapping
from dataclasses import replace

import torch

from effnet_fast.models.config import EfficientNetConfig, Preprocessing
from effnet_fast.models.efficientnet import CONFIGS, EfficientNet
from effnet_fast.models.families import BASES
from effnet_fast.models.networks import scaled_model_config
from effnet_fast.models.weights import load_weights

__all__ = ["create_model", "list_models", "model_config"]


# The name that `scaled_model_config` gives to a network of the paper's own coefficients.
_OF_PHI = re.compile(r"(?P<base>.+)_phi(?P<phi>-?\d+(\.\d+)?(e[+-]\d+)?)")


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that `pattern` (with *, ? and [...]) matches, smallest first within a family."""
    return [name for name in CONFIGS if fnmatch.fnmatchcase(name, pattern)]


def model_config(
    name: str,
    *,
    phi: float | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    padding: str | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
) -> EfficientNetConfig:
    """The configuration of a model, without building it. Arguments and errors as in `create_model`."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}")
    match = _OF_PHI.fullmatch(name)
    if match and phi is None:
        name, phi = match["base"], float(match["phi"])
    base = name.removeprefix("tf_")
    if phi is None and base in BASES:
        raise ValueError(f"{name!r} needs a phi, such as phi=2.5; list_models() has the published networks")
    if phi is not None and base not in BASES:
        raise ValueError(
            f"phi goes with the name of a base, {', '.join(BASES)}, not with the network {name!r}"
        )
    if phi is None and name not in CONFIGS:
        similar = difflib.get_close_matches(name.lower().replace("-", "_"), CONFIGS, n=3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "see list_models()"
        raise ValueError(f"name must be a registered model, got {name!r}; {hint}")
    config = CONFIGS[name] if phi is None else scaled_model_config(phi, base=base, tensorflow=base != name)
    given = {"padding": padding, "drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    return replace(
        config,
        num_classes=num_classes,
        in_chans=in_chans,
        preprocessing=_for_channels(config.preprocessing, in_chans),
        **{field: value for field, value in given.items() if value is not None},
    )


def create_model(
    name: str,
    *,
    phi: float | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    padding: str | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
) -> EfficientNet:
    """A new EfficientNet in training mode, on the default device.

    Names without `tf_` have symmetric padding and batch norm eps 1e-5, momentum 0.1, as timm's models of that
    name; `tf_*` has TensorFlow's SAME padding, eps 1e-3 and the published momentum (0.01; V2's 0.1).

    Args:
        name: one of `list_models()`; with `phi` a base, "efficientnet", "efficientnetv2", "mobilenetv2" or
            another of `effnet_fast.models.families.BASES`, also with "tf_" before it.
            "efficientnet_phi2.5" is "efficientnet" with phi 2.5.
        phi: compound coefficient of the paper's formula, any real number; see `effnet_fast.scaling.compound`.
        num_classes: outputs of the classifier, at least 1.
        in_chans: channels of the image, at least 1.
        weights: None: new weights, drawn as published. Else a path (.pth, .safetensors) or a state dict
            with timm, torchvision, efficientnet_pytorch or this package's names, which must fit exactly;
            `load_weights` has the details and, with `adapt_classifier=True`, fits weights of another number
            of classes.
        padding: None: the model's. Else "symmetric" or "same", from each input's size.
        drop_rate: dropout before the classifier; None: as published (0.2 for B0 to 0.5 for B8 and
            L2; V2's 0.2 to 0.4).
        drop_path_rate: stochastic depth, linear over the blocks; None: as published (0.2;
            MobileNetV2's 0).

    Raises: TypeError or ValueError, naming the argument, what was given and what is allowed; what
        `load_weights` raises.

    Example:
        >>> model = create_model("efficientnet_b0", weights="efficientnet_b0.pth").eval()
        >>> logits = model(images)  # [N, 3, H, W] normalised as model.preprocessing says -> [N, 1000]
    """
    config = model_config(
        name,
        phi=phi,
        num_classes=num_classes,
        in_chans=in_chans,
        padding=padding,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    model = EfficientNet(config)
    if weights is not None:
        load_weights(model, weights)
    return model


def _for_channels(preprocessing: Preprocessing, in_chans: object) -> Preprocessing:
    """The average of the three channels' mean and std, for every channel of an image that is not RGB."""
    if not isinstance(in_chans, int) or in_chans == len(preprocessing.mean):
        return preprocessing
    mean, std = (sum(values) / len(values) for values in (preprocessing.mean, preprocessing.std))
    return replace(preprocessing, mean=(mean,) * in_chans, std=(std,) * in_chans)
