"""`benchmarks fuse --alone`: single layers as modules by themselves, eager, and fused whatever the rule says.

`effnet_fast/fusion/rule.py` leaves some of them alone; this is what it is to be judged by. The fused form is
that of `--blocks`: the program, without asking the rule. Both get the same maps. Where those are NCHW, the
fused form's time has the rearranging in it, and what it gives is in channels_last memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks.cases import DTYPES
from benchmarks.fuse_blocks import FusedBlockRunner
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.readers import READERS
from effnet_fast.fusion.rule import slower
from effnet_fast.fusion.spec import Block

PEERS = {"eager": "eager", "fused": "fused"}

#: Layout of the input, as a column of the result file has it -> as PyTorch calls it.
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}

#: What the rule decides about a layer.
FUSE, LEAVE = "fuse", "leave alone"


@dataclass(frozen=True)
class Layer:
    """A layer whose input has `size` x `size` pixels; `make` makes the module, with random weights."""

    name: str
    size: int
    make: Callable[[], nn.Module]


def _squeeze_excite(channels: int, squeeze: int, size: int) -> Layer:
    """As an EfficientNet has it: SiLU, and a 24th of the channels in a block that expands sixfold."""

    def make() -> nn.Module:
        from timm.models._efficientnet_blocks import SqueezeExcite

        return SqueezeExcite(channels, rd_channels=squeeze, act_layer=nn.SiLU)

    return Layer(f"squeeze-excite, {channels} @{size}", size, make)


def _se_module(channels: int, size: int) -> Layer:
    """As a SE-ResNet has it: ReLU, and a 16th of the channels."""

    def make() -> nn.Module:
        from timm.layers import SEModule

        return SEModule(channels)

    return Layer(f"SE-ResNet's, {channels} @{size}", size, make)


def _convolution(kernel: int, channels: int, out: int, size: int, stride: int = 1) -> Layer:
    """Convolution, batch norm and ReLU."""

    def make() -> nn.Module:
        from timm.layers import ConvNormAct

        return ConvNormAct(channels, out, kernel, stride=stride)

    behind = f", stride {stride}" if stride != 1 else ""
    return Layer(f"{kernel}x{kernel}, {channels} > {out} @{size}{behind}", size, make)


_3x3, _1x1 = partial(_convolution, 3), partial(_convolution, 1)

#: Squeeze-excites; ResNets' convolutions, and some on either side of the rule's bound.
LAYERS = (
    _squeeze_excite(96, 4, 112),
    _squeeze_excite(144, 6, 56),
    _squeeze_excite(480, 20, 14),
    _squeeze_excite(1152, 48, 7),
    _se_module(256, 56),
    _se_module(2048, 7),
    _3x3(32, 32, 112),
    _3x3(48, 48, 56),
    _3x3(64, 64, 56),
    _3x3(96, 96, 28),
    _3x3(64, 128, 56, stride=2),
    _3x3(128, 128, 28),
    _3x3(256, 256, 14),
    _3x3(512, 512, 7),
    _1x1(256, 512, 56, stride=2),
    _1x1(64, 256, 56),
    _1x1(256, 64, 56),
    _1x1(128, 512, 28),
    _1x1(1024, 256, 14),
    _1x1(512, 2048, 7),
)


@dataclass(frozen=True)
class LayerCase:
    """A layer at a batch, a dtype and a layout of its input, and what the rule decides about it on a CPU."""

    layer: Layer
    batch: int
    dtype: str
    layout: str
    rule: str

    @property
    def size(self) -> tuple[int, int]:
        return self.layer.size, self.layer.size

    @property
    def memory_format(self) -> torch.memory_format:
        return LAYOUTS[self.layout]

    @property
    def key(self) -> str:
        return f"{self.layer.name}/{self.batch}/{self.dtype}/{self.layout}"

    def record(self) -> dict[str, object]:
        """Columns of the result file."""
        return {
            "layer": self.layer.name,
            "batch": self.batch,
            "dtype": self.dtype,
            "layout": self.layout,
            "rule": self.rule,
        }

    def subject(self, seed: int) -> tuple[nn.Module, Block]:
        """The layer's module with weights of the dtype, and what it computes."""
        module = _seeded(self.layer.make, seed).to(DTYPES[self.dtype])
        return module, block_of(module)


def case_title(case: LayerCase) -> str:
    return f"{case.layer.name}, batch {case.batch}, {case.dtype} {case.layout}"


def layer_cases(layers: Sequence[Layer], batch: int, dtypes: Sequence[str]) -> list[LayerCase]:
    """Every layer at every dtype in both layouts."""
    return [
        LayerCase(layer, batch, dtype, layout, rule)
        for layer, rule in [(layer, decision(layer)) for layer in layers]
        for dtype in dtypes
        for layout in LAYOUTS
    ]


def decision(layer: Layer) -> str:
    """What the rule decides about `layer` on a CPU."""
    with torch.device("meta"):
        module = layer.make().eval()
    return LEAVE if slower(block_of(module), "cpu") else FUSE


def block_of(module: nn.Module) -> Block:
    """What `module` computes."""
    return READERS[class_name(module)](module)


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `make` makes, evaluating, as after training on maps of mean 0 and variance 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        for norm in (child for child in module.modules() if isinstance(child, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.6, 1.4)
            nn.init.normal_(norm.bias, std=0.2)
            nn.init.normal_(norm.running_mean, std=0.1)
            # PyTorch's initial weights leave a third of the variance.
            nn.init.uniform_(norm.running_var, 0.2, 0.5)
    return module.eval().requires_grad_(False)


class LayerRunner(FusedBlockRunner):
    """Contests of single layers, in this process."""

    labels: Mapping[str, str] = PEERS
