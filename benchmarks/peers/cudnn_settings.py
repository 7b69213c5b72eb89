"""Eager PyTorch on a GPU under cuDNN's other settings: its search switched off, and itself for depthwise.

The other eager peers let cuDNN search for the fastest kernel of each convolution (benchmarks/devices.py).
By default PyTorch asks its heuristics instead; and for depthwise convolutions it has kernels of its own,
which it takes where cuDNN is off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.peers import eager_folded
from benchmarks.peers.peer import Peer, Prepared


class WithoutCudnn(nn.Module):
    """`conv` with cuDNN switched off around it.

    Args:
        conv: a convolution.
        cudnn: `torch.backends.cudnn`; tests give their own.
    """

    def __init__(self, conv: nn.Module, cudnn: Any = torch.backends.cudnn) -> None:
        super().__init__()
        self.conv, self._cudnn = conv, cudnn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self._cudnn.flags(enabled=False, allow_tf32=False):
            return self.conv(x)


def without_cudnn(model: nn.Module, cudnn: Any = torch.backends.cudnn) -> int:
    """Wrap, in place, every depthwise convolution of `model`; returns how many."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1
    ]
    for parent, name, child in found:
        setattr(parent, name, WithoutCudnn(child, cudnn))
    return len(found)


def prepare_heuristics(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    torch.backends.cudnn.benchmark = False  # global: one reason why every peer has its own process
    return eager_folded.prepare(model, images, dtype)


def prepare_native(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    eager_folded.fold_batch_norms(model)  # before the convolutions are wrapped
    wrapped = without_cudnn(model)
    prepared = eager_folded.prepare(model, images, dtype)
    return Prepared(prepared.call, prepared.own_bytes, {"depthwise": wrapped})


def _peer(name: str, label: str, prepare: Any, setting: dict[str, object]) -> Peer:
    return Peer(
        name,
        label,
        "eager",
        prepare,
        {**eager_folded.PEER.settings, **setting},
        devices=("cuda",),
        elsewhere="cuDNN needs a GPU",
    )


HEURISTICS = _peer(
    "eager-heuristics", "eager heuristics", prepare_heuristics, {"cudnn": "heuristics, no search"}
)
NATIVE = _peer(
    "eager-native", "eager native depthwise", prepare_native, {"cudnn": "searches; off for depthwise"}
)
