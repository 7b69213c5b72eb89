"""Folded weights in the form that a backend's kernels read: the engine's only copy of them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from effnet_fast import ops
from effnet_fast.backends import Backend
from effnet_fast.inference.folding import (
    FoldedBlock,
    FoldedConv,
    FoldedConvBlock,
    FoldedFusedBlock,
    FoldedNetwork,
)
from effnet_fast.inference.layers import is_fused
from effnet_fast.ops.schemas import operator

__all__ = ["LayerWeights", "layer_weights", "pack_network", "packed_bytes"]


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Float32 weights of one fused operator, in the order of its schema.

    `single` operators compute in float32 whatever the engine's dtype (the classifier: logits are float32).
    """

    name: str
    operator: str
    weights: tuple[Tensor, ...]
    activation: str
    expand_activation: str | None = None
    single: bool = False

    def rounded(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        """The weights on `device`: convolutions' in `dtype`, biases and squeeze-excite in float32."""
        row = operator(self.operator)
        storage = torch.float32 if self.single else dtype
        return tuple(
            tensor.to(device=device, dtype=storage if row.tensors[name].kind == "storage" else torch.float32)
            for name, tensor in zip(row.weights, self.weights, strict=True)
        )


def layer_weights(
    network: FoldedNetwork, *, fuse_expansion: bool | Container[str] = False
) -> Iterator[LayerWeights]:
    """The weights of every layer that `network_layers` makes with this `fuse_expansion`, by layer names."""
    yield _conv("stem_conv", network.stem)
    for block in network.blocks:
        if isinstance(block, FoldedFusedBlock):
            yield _conv("dense_conv", block.expand)
            yield _conv("pointwise_conv", block.project)
        elif isinstance(block, FoldedConvBlock):
            yield _conv("dense_conv", block.conv)
        else:
            yield from (_fused_block if is_fused(block, fuse_expansion) else _block)(block)
    yield _conv("head_pool", network.head)
    classifier = network.classifier
    weight = classifier.weight[:, :, None, None]
    yield LayerWeights(classifier.name, "pointwise_conv", (weight, classifier.bias), "identity", single=True)


def pack_network(
    network: FoldedNetwork,
    backends: Mapping[str, Backend],
    dtype: torch.dtype,
    device: torch.device,
    isa: str = "auto",
    *,
    fuse_expansion: bool | Container[str] = False,
) -> dict[str, Tensor]:
    """{layer name: packed weights} for storage `dtype` on `device`.

    Args:
        network: folded weights; not changed.
        backends: the resolved backend of each operator in use.
        dtype: float32, float16 or bfloat16: convolution weights are rounded to it, once, from float32.
        device: where the engine runs.
        isa: for the CPU backend, the instruction set to pack for.
        fuse_expansion: as in `network_layers`.
    """
    return {
        layer.name: ops.pack(
            layer.operator,
            *layer.rounded(dtype, device),
            activation=layer.activation,
            expand_activation=layer.expand_activation,
            backend=backends[layer.operator],
            isa=isa if backends[layer.operator] is Backend.CPU else "auto",
        )
        for layer in layer_weights(network, fuse_expansion=fuse_expansion)
    }


def packed_bytes(
    network: FoldedNetwork, dtype: torch.dtype, *, fuse_expansion: bool | Container[str] = False
) -> int:
    """Bytes of the weights of `network` in storage `dtype`; packing adds padding, a few per cent."""
    total = 0
    for layer in layer_weights(network, fuse_expansion=fuse_expansion):
        row = operator(layer.operator)
        storage = torch.float32 if layer.single else dtype
        for name, tensor in zip(row.weights, layer.weights, strict=True):
            kind = storage if row.tensors[name].kind == "storage" else torch.float32
            total += tensor.numel() * kind.itemsize
    return total


def _conv(operator: str, conv: FoldedConv) -> LayerWeights:
    return LayerWeights(conv.name, operator, (conv.weight, conv.bias), conv.activation)


def _fused_block(block: FoldedBlock) -> Iterator[LayerWeights]:
    expand, depthwise, se = block.expand, block.depthwise, block.squeeze_excite
    name = "expand_depthwise" if se is None else "expand_depthwise_pool"
    weights = (expand.weight, expand.bias, depthwise.weight, depthwise.bias)
    yield LayerWeights(depthwise.name, name, weights, depthwise.activation, expand.activation)
    if se is not None:
        layer = f"{block.name}.squeeze_excite"
        yield LayerWeights(layer, "squeeze_excite_gate", (se.w1, se.b1, se.w2, se.b2), se.activation)
    yield _conv("pointwise_conv", block.project)


def _block(block: FoldedBlock) -> Iterator[LayerWeights]:
    if block.expand is not None:
        yield _conv("pointwise_conv", block.expand)
    depthwise, se = block.depthwise, block.squeeze_excite
    if se is None:
        yield _conv("depthwise_conv", depthwise)
    else:
        weights = (depthwise.weight, depthwise.bias, se.w1, se.b1, se.w2, se.b2)
        yield LayerWeights(depthwise.name, "depthwise_conv_gate", weights, depthwise.activation)
    yield _conv("pointwise_conv", block.project)
