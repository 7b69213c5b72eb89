"""Loads trained weights, whatever library named them, into an `EfficientNet`: completely, or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from effnet_fast.models.checkpoint import WeightsError, read_state_dict, unwrap_state_dict
from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.efficientnet import CONFIGS, EfficientNet
from effnet_fast.models.naming import NAMINGS, detect_naming, key_map, optional, structure_of

__all__ = ["LoadReport", "load_weights"]

CLASSIFIER = ("classifier.weight", "classifier.bias")
SHOWN = 4  # names listed in a message


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        origin: the file, or "state dict".
        library: whose names the weights had: effnet_fast, timm, torchvision or efficientnet_pytorch.
        classifier_loaded: False if the model kept its own (only with `adapt_classifier=True`).
    """

    origin: str
    library: str
    classifier_loaded: bool


def load_weights(
    model: EfficientNet,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor],
    *,
    adapt_classifier: bool = False,
) -> LoadReport:
    """Load `weights` into `model`, in place. Every weight is replaced, or the model is left as it was.

    Args:
        model: on any device but "meta"; values are converted to its dtype (float16 and bfloat16 files too).
        weights: a path (.pth, .pt, .safetensors) or a state dict, with the names of timm, torchvision,
            efficientnet_pytorch or this package (detected). Checkpoints that wrap it ({"state_dict": ...},
            "module." before each name, ...) are opened; averaged (EMA) weights come before the last ones.
        adapt_classifier: False: the classifier must fit. True: where the weights have another number of
            classes, or no classifier, the model keeps its own (new) classifier and takes all the rest.

    Batch counters (`num_batches_tracked`) may be missing; they become 0.

    Raises: FileNotFoundError; TypeError for a `model` or `weights` of another type; WeightsError (a
        ValueError) for a damaged file, one with code in it, another architecture, values that are not
        finite, or another number of classes or input channels.
    Warns: UserWarning if the library of the weights uses another padding or batch norm epsilon than the model
        has: the outputs would be silently worse.
    """
    if not isinstance(model, EfficientNet):
        raise TypeError(f"model must be an effnet_fast EfficientNet, got {type(model).__name__}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise WeightsError(
            "model is on the meta device and has no memory to load into; call model.to_empty first"
        )
    origin, state = _as_state_dict(weights)

    library = detect_naming(state)
    if library is None:
        raise WeightsError(
            f"{origin} is not an EfficientNet: its names ({_listed(state)}) are none of "
            f"{', '.join(NAMINGS)}'s"
        )
    try:
        names = key_map(structure_of(model.config), library)
    except ValueError as error:
        raise WeightsError(f"{origin} has {library} names: {error}") from error
    ours = {theirs: name for name, theirs in names.items()}
    renamed = {ours.get(key, key): value for key, value in state.items()}

    own = model.state_dict()
    keeps_classifier = adapt_classifier and any(
        key not in renamed or renamed[key].shape != own[key].shape for key in CLASSIFIER
    )
    if keeps_classifier:
        renamed |= {key: own[key] for key in CLASSIFIER}
    _check_names_and_shapes(renamed, own, names, state, model.config, origin, library)
    checked = {key: _checked_value(renamed.get(key), own[key], names[key], origin) for key in own}
    _warn_of_other_training(model.config, library, origin)

    model.load_state_dict(checked, strict=True)
    return LoadReport(origin, library, classifier_loaded=not keeps_classifier)


def _as_state_dict(weights: object) -> tuple[str, dict[str, torch.Tensor]]:
    if isinstance(weights, (str, os.PathLike)):
        return f"weights file {os.fspath(weights)}", read_state_dict(weights)
    if isinstance(weights, Mapping):
        return "state dict", unwrap_state_dict(weights, "state dict")
    advice = "; pass its state_dict()" if isinstance(weights, torch.nn.Module) else ""
    raise TypeError(f"weights must be a path or a state dict, got {type(weights).__name__}{advice}")


def _check_names_and_shapes(
    renamed: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    state: Mapping[str, torch.Tensor],
    config: EfficientNetConfig,
    origin: str,
    library: str,
) -> None:
    """Raise WeightsError unless `renamed` has the names and shapes of `own`."""
    missing = [names[key] for key in own if key not in renamed and not optional(key)]
    known = set(names.values())
    unknown = [key for key in state if key not in known]
    wrong = [
        key for key in own if key in renamed and renamed[key].shape != own[key].shape and not optional(key)
    ]

    if not unknown and set(missing) == {names[key] for key in CLASSIFIER} and not wrong:
        raise WeightsError(
            f"{origin} has no classifier; "
            "load_weights(model, weights, adapt_classifier=True) keeps the model's own"
        )
    if not missing and not unknown:
        if not wrong:
            return
        if set(wrong) <= set(CLASSIFIER):
            classes = renamed[CLASSIFIER[1]].numel()
            raise WeightsError(
                f"{origin} has {classes} classes and the model has num_classes={config.num_classes}; "
                f"create the model with num_classes={classes}, or keep its own new classifier with "
                "load_weights(model, weights, adapt_classifier=True)"
            )
        stem = renamed["stem.conv.weight"]
        if "stem.conv.weight" in wrong and set(wrong) <= {*CLASSIFIER, "stem.conv.weight"} and stem.ndim == 4:
            raise WeightsError(
                f"{origin} expects images of {stem.shape[1]} channels "
                f"and the model has in_chans={config.in_chans}"
            )

    found = _architectures(state, library)
    problems = [f"it has the shapes of {' and '.join(found)}"] if found else []
    if missing:
        problems.append(f"missing {_listed(missing)}")
    if unknown:
        problems.append(f"unknown {_listed(unknown)}")
    if wrong:
        key = wrong[0]
        problems.append(
            f"{len(wrong)} of another shape, first {names[key]}: {list(renamed[key].shape)}, "
            f"the model has {list(own[key].shape)}"
        )
    raise WeightsError(f"{origin} ({library} names) does not fit {config.name}: {'; '.join(problems)}")


def _architectures(state: Mapping[str, torch.Tensor], library: str) -> list[str]:
    """Registered models, without their tf_ twins, whose names and widths `state` has."""
    found = []
    for name, config in CONFIGS.items():
        if name.startswith("tf_"):
            continue
        try:
            names = key_map(structure_of(config), library)
        except ValueError:  # the library has no such model
            continue
        needed = {theirs for ours, theirs in names.items() if ours not in CLASSIFIER and not optional(ours)}
        if needed <= set(state) <= set(names.values()) and _has_widths(state, names, config):
            found.append(name)
    return found


def _has_widths(
    state: Mapping[str, torch.Tensor], names: Mapping[str, str], config: EfficientNetConfig
) -> bool:
    widths = {"stem.conv.weight": config.stem_channels, "head.conv.weight": config.head_channels}
    inner = {"mbconv": "depthwise", "fused": "expand"}
    for block in config.blocks():
        last = "conv" if block.kind == "conv" else "project"
        widths[f"{block.name}.{last}.conv.weight"] = block.out_channels
        if block.kind in inner:
            widths[f"{block.name}.{inner[block.kind]}.conv.weight"] = block.expanded_channels
    return all(state[names[key]].shape[:1] == (width,) for key, width in widths.items())


def _checked_value(value: torch.Tensor | None, own: torch.Tensor, name: str, origin: str) -> torch.Tensor:
    """`value` in the dtype of the model's own tensor, or a zero for a batch counter that is not there."""
    if value is None:
        return torch.zeros_like(own)
    if not own.is_floating_point():
        if value.numel() != 1:
            raise WeightsError(f"{origin}: {name} must hold one number, got shape {list(value.shape)}")
        return value.reshape(own.shape).to(own.dtype)
    if value.is_meta:
        raise WeightsError(f"{origin}: {name} is on the meta device and has no values")
    if value.layout is not torch.strided or value.is_quantized or not value.is_floating_point():
        raise WeightsError(
            f"{origin}: {name} must be a dense floating-point tensor, got {value.dtype}, {value.layout}"
        )
    value = value.detach().to(own.dtype)
    if not torch.isfinite(value).all():
        raise WeightsError(f"{origin}: {name} has values that are not finite (in {own.dtype})")
    if name.endswith(".running_var") and (value < 0).any():
        raise WeightsError(f"{origin}: {name} has negative variances")
    return value


def _warn_of_other_training(config: EfficientNetConfig, library: str, origin: str) -> None:
    """Warn where the naming shows that the weights belong to another padding or epsilon than the model's.

    efficientnet_pytorch has TensorFlow's weights (SAME, 1e-3). torchvision trained B0..B4 and MobileNetV2
    itself (symmetric, 1e-5); its B5..B7 and EfficientNetV2 have TensorFlow's epsilon and symmetric padding.
    With timm's names both kinds exist, and nothing can be told, but that EfficientNetV2 and L2 were published
    there with TensorFlow's weights alone.
    """
    base = config.name.removeprefix("tf_")
    if library == "efficientnet_pytorch":
        padding, eps, advice = "same", 1e-3, f"create_model('tf_{base}')"
    elif library == "torchvision" and (base[-2:] in ("b5", "b6", "b7") or base.startswith("efficientnetv2_")):
        padding, eps, advice = "symmetric", 1e-3, f"create_model('tf_{base}', padding='symmetric')"
    elif library == "timm" and base.startswith(("efficientnetv2_", "efficientnet_l2")):
        padding, eps, advice = "same", 1e-3, f"create_model('tf_{base}')"
    elif library == "torchvision":
        padding, eps, advice = "symmetric", 1e-5, f"create_model('{base}')"
    else:
        return
    if (config.padding, config.norm_eps) != (padding, eps):
        warnings.warn(
            f"{origin} has {library} names; {library}'s published weights of it have padding={padding!r} and "
            f"batch norm eps={eps:g}, but this {config.name} has padding={config.padding!r} and "
            f"eps={config.norm_eps:g}, which gives other outputs; for the published weights use {advice}",
            stacklevel=3,
        )


def _listed(names: Mapping[str, object] | list[str]) -> str:
    shown = list(names)[:SHOWN]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
