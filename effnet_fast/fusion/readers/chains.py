"""Convolutions whose norm and activation are modules of the network itself, called in turn by its forward.

They are no blocks of their own: the network calls each by name. Only exact classes whose forward was read are
in the table, since another class may do something between the calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from effnet_fast.fusion.parts import class_name, is_identity, read_conv, require_plain
from effnet_fast.fusion.spec import Conv, Unsupported

__all__ = ["CHAINS", "Chain", "Chains"]


@dataclass(frozen=True, eq=False)
class Chain:
    """What `lead` and its followers compute together.

    Attributes:
        lead: the convolution's name in the network, dotted.
        followers: names of the modules that the network calls next, each with the result of the one before.
            One module may follow in several chains of a network; then either all of them are found or none.
        conv: all of it.
    """

    lead: str
    followers: tuple[str, ...]
    conv: Conv


@dataclass(frozen=True)
class Chains:
    """The chains of one network.

    Attributes:
        found: those that our operators compute.
        refused: of the others, the lead's name and the reason in one clause.
    """

    found: tuple[Chain, ...] = ()
    refused: Mapping[str, str] | None = None


# The names of a convolution, its norm and its activation, if that is a module of its own.
Names = tuple[str, ...]


def _read(rows: tuple[Names, ...], owner: nn.Module) -> Chains:
    """The chains of `owner`, whose class has `rows`."""
    found: dict[Names, Chain] = {}
    refused: dict[Names, str] = {}
    absent: list[Names] = []
    for names in rows:
        try:
            if _is_absent(owner, names[0]):
                absent.append(names)
                continue
            found[names] = Chain(names[0], names[1:], _read_conv(owner, names))
        except Unsupported as error:
            refused[names] = str(error)
    # A module that several chains call can only become idle for all of them.
    for names in list(found):
        for other in (*refused, *absent):
            shared = set(names[1:]) & set(other[1:])
            if shared:
                refused[names] = f"{shared.pop()} also follows {other[0]}, which stays as it is"
                found.pop(names, None)
    return Chains(tuple(found.values()), {names[0]: reason for names, reason in refused.items()})


def _is_absent(owner: nn.Module, lead: str) -> bool:
    """Whether the network was cut before `lead`: timm leaves an Identity, slicing leaves nothing."""
    try:
        return is_identity(owner.get_submodule(lead))
    except AttributeError:
        return True


def _read_conv(owner: nn.Module, names: Names) -> Conv:
    require_plain(owner)
    calls = Counter(id(module) for _, module in owner.named_modules(remove_duplicate=False))
    modules = []
    for name in names:
        _require_sequential_path(owner, name)
        try:
            module = owner.get_submodule(name)
        except AttributeError:
            raise Unsupported(f"there is no {name} behind it") from None
        for each in module.modules():
            require_plain(each)
        if calls[id(module)] > 1:
            raise Unsupported(f"{name} is used elsewhere as well")
        modules.append(module)
    return read_conv(*modules)


def _require_sequential_path(owner: nn.Module, name: str) -> None:
    """Numbers in a name tell the order of calls only inside an nn.Sequential."""
    path = name.split(".")[:-1]
    for depth in range(1, len(path) + 1):
        container = owner.get_submodule(".".join(path[:depth]))
        if class_name(container) != "torch.nn.modules.container.Sequential":
            raise Unsupported(f"{'.'.join(path[:depth])} is a {type(container).__name__}")
        require_plain(container)


_STEM = ("conv_stem", "bn1")
_ROWS: Mapping[str, tuple[Names, ...]] = {
    "timm.models.efficientnet.EfficientNet": (_STEM, ("conv_head", "bn2")),
    "timm.models.efficientnet.EfficientNetFeatures": (_STEM,),
    # Its head comes after the pooling, with a norm (MobileNetV4) or an activation, the other an Identity.
    "timm.models.mobilenetv3.MobileNetV3": (_STEM, ("conv_head", "norm_head", "act2")),
    "timm.models.mobilenetv3.MobileNetV3Features": ((*_STEM, "act1"),),
    "efficientnet_pytorch.model.EfficientNet": (
        ("_conv_stem", "_bn0", "_swish"),
        ("_conv_head", "_bn1", "_swish"),
    ),
    # Positions in one flat Sequential: stem, depthwise convolution, its projection, ..., head.
    "torchvision.models.mnasnet.MNASNet": tuple(
        tuple(f"layers.{position}" for position in positions)
        for positions in ((0, 1, 2), (3, 4, 5), (6, 7), (14, 15, 16))
    ),
}

CHAINS: Mapping[str, Callable[[nn.Module], Chains]] = {
    name: partial(_read, rows) for name, rows in _ROWS.items()
}
