"""The stock side of `benchmarks ops` and `blocks`: as PyTorch runs it, step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet_fast.ops.schemas import OPERATORS

# In place, as networks are written: a step that needs no second tensor gets none.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": lambda x: F.relu(x, inplace=True),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "silu": lambda x: F.silu(x, inplace=True),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
}
GATES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid}


def unfolded(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, nn.BatchNorm2d]:
    """A weight without bias, and the batch norm behind it, that folding makes `weight` and `bias` of.

    The norm's scales are powers of two and its variances 1, so that `weight` is the same to the bit in any
    dtype: what is compared with the folded form rounds in other places, but not other weights.
    """
    channels, random = weight.shape[0], torch.Generator().manual_seed(0)
    scale = 2.0 ** torch.randint(-1, 2, (channels,), generator=random)
    mean = 0.3 * torch.randn(channels, generator=random)
    norm = nn.BatchNorm2d(channels).requires_grad_(False).to(weight.device)
    scale, mean = scale.to(weight.device), mean.to(weight.device, weight.dtype).float()
    norm.weight.copy_(scale)
    norm.bias.copy_(mean * scale if bias is None else bias.float() + mean * scale)
    norm.running_mean.copy_(mean)
    norm.running_var.fill_(1.0 - norm.eps)
    return weight / scale.view(-1, 1, 1, 1).to(weight.dtype), norm.to(weight.dtype)


class Unfused(nn.Module):
    """Convolution, activation, mean, squeeze-excite, gate, residual: everything in the storage dtype.

    Args:
        operator: one of those in a three-kernel plan.
        arguments: of the operator, in schema order. Weights are kept here, ready for stock kernels; the rest
            is in `inputs`, to be passed to `forward`.
        batch_norm: whether the convolution has a batch norm behind it instead of a bias; see `unfolded`.
    """

    def __init__(self, operator: str, arguments: Sequence[Any], *, batch_norm: bool = False) -> None:
        super().__init__()
        row = OPERATORS[operator]
        values = {p.name: value for p, value in zip(row.parameters, arguments, strict=True)}
        self.operator = operator
        self.stride, self.padding = values.get("stride", 1), values.get("padding", (0, 0, 0, 0))
        self.activation = ACTIVATIONS[values["activation"]]
        storage = values["weight"].dtype
        self.norm: nn.Module | None = None
        if batch_norm:
            values["weight"], self.norm = unfolded(values["weight"], values["bias"])
            values["bias"] = None
        for name in row.weights:
            value = None if values[name] is None else values[name].to(storage)
            if value is not None and value.dim() == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, value)
        self.inputs: list[Tensor | None] = [arguments[0], None, None]
        if operator == "depthwise_conv_gate":
            self.se_activation, self.gate = ACTIVATIONS[values["se_activation"]], GATES[values["gate"]]
        elif values.get("gate") is not None:
            self.inputs[1] = values["gate"].to(storage)[:, :, None, None]
        self.inputs[2] = values.get("residual")

    def _convolution(self, x: Tensor) -> Tensor:
        if x.shape[2:] == (1, 1) and self.weight.shape[2:] == (1, 1):
            return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]
        groups = x.shape[1] // self.weight.shape[1]
        top, left, bottom, right = self.padding
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), 1, groups)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, groups)

    def _gates(self, y: Tensor) -> Tensor:
        squeezed = self.se_activation(F.linear(y.mean((2, 3)), self.w1.flatten(1), self.b1))
        return self.gate(F.linear(squeezed, self.w2.flatten(1), self.b2))

    def forward(
        self, x: Tensor, gate: Tensor | None, residual: Tensor | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """What the operator returns, in the storage dtype."""
        if gate is not None:
            x = x * gate
        y = self._convolution(x)
        y = self.activation(y if self.norm is None else self.norm(y))
        if residual is not None:
            y = y + residual
        if self.operator == "depthwise_conv_gate":
            return y, self._gates(y)
        return y.mean((2, 3)) if self.operator == "head_pool" else y


class UnfusedBlock(nn.Module):
    """A whole MBConv block, expansion to residual, in such steps.

    Args:
        arguments: of `mbconv`, in schema order; x is to be passed to `forward`.
        batch_norm: whether each convolution has a batch norm behind it instead of a bias.
    """

    def __init__(self, arguments: Sequence[Any], *, batch_norm: bool = False) -> None:
        super().__init__()
        (
            _, w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project,
            stride, padding, activation, se_activation, gate, self.residual,
        ) = arguments  # fmt: skip
        unfused = functools.partial(Unfused, batch_norm=batch_norm)
        self.expand = None
        if w_expand is not None:
            self.expand = unfused("pointwise_conv", [None, w_expand, b_expand, activation, None, None])
        conv = [None, w_dw, b_dw, stride, padding, activation]
        self.gated = w1 is not None
        self.depthwise = (
            unfused("depthwise_conv_gate", [*conv, w1, b1, w2, b2, se_activation, gate])
            if self.gated
            else unfused("depthwise_conv", conv)
        )
        self.project = unfused("pointwise_conv", [None, w_project, b_project, "identity", None, None])

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, Cout, OH, OW], in the storage dtype."""
        hidden = x if self.expand is None else self.expand(x, None, None)
        filtered, gates = self.depthwise(hidden, None, None), None
        if self.gated:
            filtered, gates = filtered
            gates = gates[:, :, None, None]
        return self.project(filtered, gates, x if self.residual else None)


def compiled_call(module: nn.Module, inputs: Sequence[Any], mode: str | None) -> Callable[[], object]:
    """`module(*inputs)` through `torch.compile` with frozen weights, called once."""
    torch.compiler.reset()
    function = torch.compile(module, fullgraph=True, dynamic=False, mode=mode)

    def call() -> object:
        with torch.no_grad():
            return function(*inputs)

    import torch._inductor.config as inductor_config

    # Constant weights may be packed for the library that multiplies: up to 1.6 times faster on a CPU.
    with inductor_config.patch(freezing=True):
        call()
    return call
