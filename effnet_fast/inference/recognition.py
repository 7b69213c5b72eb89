"""Whether a model computes what its attributes say: folding reads those, and never runs the model.

A part that was exchanged, subclassed or patched would otherwise be folded into a network that computes
something else.
"""

from __future__ import annotations

import logging

from torch import nn

from effnet_fast.models.efficientnet import EfficientNet
from effnet_fast.nn import ConvNormAct, SqueezeExcite
from effnet_fast.nn.activations import make_activation, make_gate
from effnet_fast.nn.conv import Conv2dSame

__all__ = ["check_conv_norm_act", "check_model", "check_squeeze_excite", "check_type"]

_logger = logging.getLogger("effnet_fast")


def check_model(model: nn.Module) -> None:
    """Raise unless `model` computes an `EfficientNet` in evaluation mode; its blocks are checked one by one.

    A warning names the first module with forward hooks: they are not run by what is folded.

    Raises: TypeError for another model, or a part of another class than an `EfficientNet` has; ValueError
        for training mode, and for a module whose forward or weight was replaced. Both name the part.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    missing = [part for part in ("stem", "stages", "head", "classifier") if not hasattr(model, part)]
    if missing:
        raise TypeError(
            f"model must be an effnet_fast EfficientNet, got {type(model).__name__}, "
            f"which has no {', '.join(missing)}"
        )
    if not _runs_as(model, EfficientNet) or type(model).forward_features != EfficientNet.forward_features:
        raise TypeError(
            f"model must be an effnet_fast EfficientNet, got {type(model).__name__} with a forward of its own"
        )
    if model.training:
        raise ValueError(
            "model must be in evaluation mode, got one in training mode: call model.eval() first"
        )
    hooked = []
    for name, module in model.named_modules():
        # Dropout and drop path left in training mode would make the model random, a batch norm depend on its
        # batch.
        if module.training:
            raise ValueError(
                f"model must be in evaluation mode, but {name} is in training mode: call model.eval()"
            )
        path = f"model.{name}" if name else "model"
        if "forward" in vars(module):
            raise ValueError(f"{path}.forward was replaced on the object: an engine would not call it")
        if "weight" in vars(module):
            raise ValueError(
                f"{path}.weight is made from other parameters before each call (pruning, an old weight or "
                "spectral norm): make it permanent first, as torch.nn.utils.prune.remove does"
            )
        if module._forward_hooks or module._forward_pre_hooks:
            hooked.append(path)
    if hooked:
        _logger.warning("%s has forward hooks: the engine does not run them", hooked[0])
    if not _runs_as(model.dropout, nn.Dropout) and not _runs_as(model.dropout, nn.Identity):
        raise TypeError(f"model.dropout must be a Dropout, got {type(model.dropout).__name__}")
    for path, stage in (("stages", model.stages), *((f"stages.{n}", s) for n, s in _children(model.stages))):
        check_type(path, stage, nn.Sequential)


def check_type(name: str, module: nn.Module, allowed: type) -> None:
    """TypeError unless `module`, `name` of the model, is an `allowed`; a subclass may compute otherwise."""
    if type(module) is not allowed:
        raise TypeError(f"model.{name} must be a {allowed.__name__}, got {type(module).__name__}")


def check_conv_norm_act(name: str, module: nn.Module, *, depthwise: bool) -> None:
    """Raise unless `module`, `name` of the model, is a `ConvNormAct` whose parts are those it was made with.

    Raises: TypeError for a part of another class; ValueError for a convolution with other arguments, and for
        a batch norm without running statistics.
    """
    check_type(name, module, ConvNormAct)
    conv, norm = module.conv, module.norm
    same = module.padding == "same" and module.stride > 1
    cls = Conv2dSame if same else nn.Conv2d
    if not _runs_as(conv, cls) or conv.bias is not None or not _runs_as(norm, nn.BatchNorm2d):
        raise TypeError(
            f"model.{name} must be a convolution without bias and a BatchNorm2d, "
            f"got {conv} and {type(norm).__name__}"
        )
    side = 0 if same else module.kernel_size // 2
    _check_conv(
        f"{name}.conv",
        conv,
        kernel_size=(module.kernel_size, module.kernel_size),
        stride=(module.stride, module.stride),
        padding=(side, side),
        groups=conv.in_channels if depthwise else 1,
    )
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            f"model.{name}.norm must track running statistics to be folded, got track_running_stats=False"
        )
    check_type(f"{name}.activation", module.activation, type(make_activation(module.activation_name)))


def check_squeeze_excite(name: str, module: nn.Module) -> None:
    """As `check_conv_norm_act`, for a `SqueezeExcite`."""
    check_type(name, module, SqueezeExcite)
    for part in ("reduce", "expand"):
        conv = getattr(module, part)
        if not _runs_as(conv, nn.Conv2d) or conv.bias is None:
            raise TypeError(f"model.{name}.{part} must be a convolution with bias, got {conv}")
        _check_conv(f"{name}.{part}", conv, kernel_size=(1, 1), stride=(1, 1), padding=(0, 0), groups=1)
    check_type(f"{name}.activation", module.activation, type(make_activation(module.activation_name)))
    check_type(f"{name}.gate", module.gate, type(make_gate(module.gate_name)))


def _check_conv(name: str, conv: nn.Conv2d, **expected: object) -> None:
    for argument, value in (*expected.items(), ("dilation", (1, 1)), ("padding_mode", "zeros")):
        found = getattr(conv, argument)
        if found != value:
            raise ValueError(f"model.{name} must have {argument}={value!r}, got {found!r}")


def _runs_as(module: object, cls: type[nn.Module]) -> bool:
    """Whether `module` is a `cls` that computes as one: also a subclass, such as a parametrised one, may."""
    return isinstance(module, cls) and type(module).forward is cls.forward


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(module.named_children())
