"""Folded weights in the form that a backend's kernels read: the engine's only copy of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from effnet_fast import ops
from effnet_fast.backends import Backend
from effnet_fast.inference.block_forms import BlockForm, Forms, form_of, starts_with_stem_block
from effnet_fast.inference.folding import (
    FoldedBlock,
    FoldedConv,
    FoldedConvBlock,
    FoldedFusedBlock,
    FoldedNetwork,
)
from effnet_fast.ops.schemas import operator

__all__ = ["LayerWeights", "layer_weights", "pack_network", "packed_bytes"]


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Float32 weights of one fused operator, in the order of its schema; None for what a block lacks.

    `single` operators compute in float32 whatever the engine's dtype (the classifier: logits are float32).
    Their weights hold values of the engine's dtype all the same, as in a PyTorch model of that dtype, and a
    backend may store them as such: B0's classifier is 5 MB in float32, at batch 1 read for one image.
    """

    name: str
    operator: str
    weights: tuple[Tensor | None, ...]
    activation: str
    expand_activation: str | None = None
    single: bool = False

    def rounded(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor | None, ...]:
        """The weights on `device`: convolutions' in `dtype`, biases and squeeze-excite in float32."""
        return tuple(
            None
            if tensor is None
            else tensor.to(dtype=self._rounded(name, dtype)).to(
                device=device, dtype=self._stored(name, dtype)
            )
            for name, tensor in self._named()
        )

    def nbytes(self, dtype: torch.dtype) -> int:
        """Bytes of the weights in storage `dtype`, as `rounded` gives them."""
        return sum(
            tensor.numel() * self._stored(name, dtype).itemsize
            for name, tensor in self._named()
            if tensor is not None
        )

    def _named(self) -> Iterator[tuple[str, Tensor | None]]:
        return zip(operator(self.operator).weights, self.weights, strict=True)

    def _rounded(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype whose values weight `name` of the operator has."""
        return dtype if operator(self.operator).tensors[name].kind == "storage" else torch.float32

    def _stored(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype that it is in."""
        return torch.float32 if self.single else self._rounded(name, dtype)


def layer_weights(
    network: FoldedNetwork, *, forms: Forms = BlockForm.THREE_KERNELS
) -> Iterator[LayerWeights]:
    """The weights of every layer that `network_layers` makes with these `forms`, by layer names."""
    blocks = network.blocks
    if starts_with_stem_block(network, forms):
        yield from _stem_block(network.stem, blocks[0])
        blocks = blocks[1:]
    else:
        yield _conv("stem_conv", network.stem)
    for block in blocks:
        if isinstance(block, FoldedConvBlock):
            yield _conv("dense_conv", block.conv)
        elif isinstance(block, FoldedFusedBlock):
            yield from _fused_mbconv(block, form_of(block, forms))
        else:
            yield from _WEIGHTS[form_of(block, forms)](block)
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
    forms: Forms = BlockForm.THREE_KERNELS,
) -> dict[str, Tensor]:
    """{layer name: packed weights} for storage `dtype` on `device`.

    Args:
        network: folded weights; not changed.
        backends: the resolved backend of each operator in use.
        dtype: float32, float16 or bfloat16: convolution weights are rounded to it, once, from float32.
        device: where the engine runs.
        isa: for the CPU backend, the instruction set to pack for.
        forms: as in `network_layers`.
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
        for layer in layer_weights(network, forms=forms)
    }


def packed_bytes(
    network: FoldedNetwork, dtype: torch.dtype, *, forms: Forms = BlockForm.THREE_KERNELS
) -> int:
    """Bytes of the weights of `network` in storage `dtype`; packing adds padding, a few per cent.

    The classifier counts as float32; in bfloat16 the CPU backend stores half of that with AVX-512.
    """
    return sum(layer.nbytes(dtype) for layer in layer_weights(network, forms=forms))


def _conv(operator: str, conv: FoldedConv) -> LayerWeights:
    return LayerWeights(conv.name, operator, (conv.weight, conv.bias), conv.activation)


def _expansion_fused(block: FoldedBlock) -> Iterator[LayerWeights]:
    expand, depthwise, se = block.expand, block.depthwise, block.squeeze_excite
    name = "expand_depthwise" if se is None else "expand_depthwise_pool"
    weights = (expand.weight, expand.bias, depthwise.weight, depthwise.bias)
    yield LayerWeights(depthwise.name, name, weights, depthwise.activation, expand.activation)
    if se is not None:
        yield _squeeze_excite(block)
    yield _conv("pointwise_conv", block.project)


def _squeeze_excite(block: FoldedBlock) -> LayerWeights:
    se = block.squeeze_excite
    weights = (se.w1, se.b1, se.w2, se.b2)
    return LayerWeights(f"{block.name}.squeeze_excite", "squeeze_excite_gate", weights, se.activation)


def _stem_block(stem: FoldedConv, block: FoldedBlock) -> Iterator[LayerWeights]:
    depthwise, project = block.depthwise, block.project
    both = (stem.weight, stem.bias, depthwise.weight, depthwise.bias)
    if block.squeeze_excite is not None:
        yield LayerWeights(stem.name, "stem_block_sums", both, stem.activation)
        yield _squeeze_excite(block)
    yield LayerWeights(block.name, "stem_block", (*both, project.weight, project.bias), stem.activation)


def _three_kernels(block: FoldedBlock) -> Iterator[LayerWeights]:
    if block.expand is not None:
        yield _conv("pointwise_conv", block.expand)
    depthwise, se = block.depthwise, block.squeeze_excite
    if se is None:
        yield _conv("depthwise_conv", depthwise)
    else:
        weights = (depthwise.weight, depthwise.bias, se.w1, se.b1, se.w2, se.b2)
        yield LayerWeights(depthwise.name, "depthwise_conv_gate", weights, depthwise.activation)
    yield _conv("pointwise_conv", block.project)


def _fused_mbconv(block: FoldedFusedBlock, form: BlockForm) -> Iterator[LayerWeights]:
    expand, project = block.expand, block.project
    if form is BlockForm.WHOLE:
        weights = (expand.weight, expand.bias, project.weight, project.bias)
        yield LayerWeights(block.name, "fused_mbconv", weights, expand.activation)
    else:
        yield _conv("dense_conv", expand)
        yield _conv("pointwise_conv", project)


def _whole_block(block: FoldedBlock) -> Iterator[LayerWeights]:
    expand, depthwise, se, project = block.expand, block.depthwise, block.squeeze_excite, block.project
    weights = (
        *((None, None) if expand is None else (expand.weight, expand.bias)),
        *(depthwise.weight, depthwise.bias),
        *((None,) * 4 if se is None else (se.w1, se.b1, se.w2, se.b2)),
        *(project.weight, project.bias),
    )
    yield LayerWeights(block.name, "mbconv", weights, depthwise.activation)


_WEIGHTS = {
    BlockForm.THREE_KERNELS: _three_kernels,
    BlockForm.EXPANSION_FUSED: _expansion_fused,
    BlockForm.WHOLE: _whole_block,
}
