"""The same weights in the networks of other libraries: timm's and torchvision's, eager, channels_last."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.peers.peer import Peer, Prepared, inference_call
from effnet_fast.models import EfficientNet, convert_state_dict


def library_model(model: EfficientNet, library: str) -> nn.Module:
    """The network of this name that `library` ("timm" or "torchvision") has.

    It has the weights of `model`, is on its device, and in eval mode.
    """
    if library == "timm":
        import timm

        theirs = timm.create_model(model.config.name, num_classes=model.config.num_classes)
    else:
        import torchvision

        theirs = torchvision.models.get_model(model.config.name, num_classes=model.config.num_classes)
    theirs.load_state_dict(convert_state_dict(model.state_dict(), to=library))
    for module in theirs.modules():
        # torchvision's B5 to B7 have another epsilon than timm's; the same network is compared here.
        if isinstance(module, nn.BatchNorm2d):
            module.eps = model.config.norm_eps
    return theirs.to(model.classifier.weight.device).eval().requires_grad_(False)


def _preparing(library: str) -> Callable[[nn.Module, torch.Tensor, torch.dtype], Prepared]:
    def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
        theirs = library_model(model, library).to(dtype=dtype, memory_format=torch.channels_last)
        images = images.to(dtype=dtype, memory_format=torch.channels_last)
        return Prepared(call=inference_call(theirs, images))

    return prepare


def _missing(library: str) -> Callable[[str, str], str]:
    def missing(device: str, model: str) -> str:
        if importlib.util.find_spec(library) is None:
            return f"{library} is not installed"
        if library == "timm":
            import timm

            known = timm.is_model(model)
        else:
            import torchvision

            known = model in torchvision.models.list_models()
        return "" if known else f"{library} has no {model}"

    return missing


TIMM, TORCHVISION = (
    Peer(
        library,
        library,
        "eager",
        _preparing(library),
        {"layout": "channels_last", "mode": "eager", "network": library},
        missing=_missing(library),
    )
    for library in ("timm", "torchvision")
)
