"""A folded network as a list of fused operators with shapes: what the planner plans, free of tensors.

An MBConv block takes one of three forms (`BlockForm`):

- three kernels: the expansion; the depthwise convolution, which also pools and runs both layers of the
  squeeze-excite (`depthwise_conv_gate`; `depthwise_conv` without one); the projection, which applies the gate
  to its operand and adds the residual;
- expansion fused: `expand_depthwise_pool`, in which the expanded tensor never reaches memory;
  `squeeze_excite_gate`; the projection as before;
- whole block: `mbconv`, in which nothing but the block's input and output reaches memory.

A block without an expansion is the same in the first two. A FusedMBConv block is a `dense_conv` and a
projection, a block of one convolution is a `dense_conv` that adds its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from effnet_fast.inference.block_forms import BlockForm, Forms, form_of
from effnet_fast.inference.folding import (
    FoldedBlock,
    FoldedConv,
    FoldedConvBlock,
    FoldedFusedBlock,
    FoldedNetwork,
)
from effnet_fast.ops.geometry import conv_output_size, pool_tiles

__all__ = [
    "IMAGE",
    "Layer",
    "Shape",
    "Value",
    "block_layers",
    "block_operators",
    "network_layers",
]

Shape = tuple[int, int, int]  # channels, height, width of one image

IMAGE = "image"


@dataclass(frozen=True)
class Value:
    """A tensor between operators: its name, its shape for one image, and whether it is always float32."""

    name: str
    shape: Shape
    single: bool = False

    @property
    def numel(self) -> int:
        channels, height, width = self.shape
        return channels * height * width


@dataclass(frozen=True)
class Layer:
    """One call of a fused operator: names of what it reads and writes, and its integers.

    Attributes:
        name: of the module whose weights it takes first, as in `model.named_modules()`, or of the block where
            it takes all of one; unique.
        block: the block that it belongs to; a plan is never cut inside one.
        operator: as in `effnet_fast.ops`.
        x, y: the map read (`IMAGE` for the stem) and the map written.
        gates: the [C, 1, 1] value that `depthwise_conv_gate` writes besides y.
        sums: the [C, tiles, 1] value that `expand_depthwise_pool` writes besides y.
        gate, residual: further values that a projection reads; the residual of `mbconv` is its x.
        kernel, stride, padding, activation: of the convolution; in `mbconv` of the depthwise one.
        expanded: channels of the depthwise convolution inside `mbconv`; 0 elsewhere, where they are y's.
        expand_activation: of the expansion inside `expand_depthwise`, `expand_depthwise_pool` and `mbconv`;
            None where there is none.
        squeeze, se_activation, gate_function: of the squeeze-excite inside `depthwise_conv_gate` and
            `mbconv`; `squeeze` is 0 without one.
        count: pixels that `squeeze_excite_gate` averages over.
    """

    name: str
    block: str
    operator: str
    x: Value
    y: Value
    activation: str
    kernel: int = 1
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    gates: Value | None = None
    sums: Value | None = None
    gate: Value | None = None
    residual: Value | None = None
    expanded: int = 0
    expand_activation: str | None = None
    squeeze: int = 0
    se_activation: str = "identity"
    gate_function: str = "sigmoid"
    count: int = 0

    @property
    def expands(self) -> bool:
        """Whether the operator computes an expansion before its depthwise convolution."""
        return self.expand_activation is not None

    @property
    def filtered_channels(self) -> int:
        """Channels after the convolution with a kernel, which the squeeze-excite scales."""
        return self.expanded or self.y.shape[0]

    @property
    def reads(self) -> tuple[Value, ...]:
        """Values that it reads; the image is not one of them, for it lies in the caller's memory."""
        values = (self.x, self.gate, self.residual)
        return tuple(v for v in values if v is not None and v.name != IMAGE)

    @property
    def writes(self) -> tuple[Value, ...]:
        return tuple(v for v in (self.y, self.gates, self.sums) if v is not None)


def network_layers(
    network: FoldedNetwork, image_size: tuple[int, int], *, forms: Forms = BlockForm.THREE_KERNELS
) -> tuple[Layer, ...]:
    """The operators of `network` for images of (height, width), in order of execution.

    `forms` are the forms of its MBConv blocks, one for all or by their names. Those other than three kernels
    pay where the backend has a kernel for them.
    """
    image = Value(IMAGE, (network.in_channels, *image_size))
    stem = _conv_layer("stem", "stem_conv", network.stem, image)
    layers = [stem]
    for block in network.blocks:
        layers += block_layers(block, layers[-1].y, forms=forms)
    head = Layer(
        name=network.head.name,
        block="head",
        operator="head_pool",
        x=layers[-1].y,
        y=Value("head.pooled", (network.head.out_channels, 1, 1), single=True),
        activation=network.head.activation,
    )
    classifier = Layer(
        name=network.classifier.name,
        block="classifier",
        operator="pointwise_conv",
        x=head.y,
        y=Value("logits", (network.num_classes, 1, 1), single=True),
        activation="identity",
    )
    return (*layers, head, classifier)


def block_layers(
    block: FoldedBlock | FoldedFusedBlock | FoldedConvBlock,
    x: Value,
    *,
    forms: Forms = BlockForm.THREE_KERNELS,
) -> tuple[Layer, ...]:
    """The operators of one block on the map `x`; `forms` as in `network_layers`."""
    if isinstance(block, FoldedFusedBlock):
        return tuple(_fused_mbconv_layers(block, x))
    if isinstance(block, FoldedConvBlock):
        residual = x if block.residual else None
        return (_conv_layer(block.name, "dense_conv", block.conv, x, residual=residual),)
    return tuple(_LAYERS[form_of(block, forms)](block, x))


def block_operators(layers: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    """`layers` grouped by block, in order."""
    group: list[Layer] = []
    for layer in layers:
        if group and group[-1].block != layer.block:
            yield tuple(group)
            group = []
        group.append(layer)
    if group:
        yield tuple(group)


def _conv_layer(block: str, operator: str, conv: FoldedConv, x: Value, **more) -> Layer:
    _, height, width = x.shape
    padding = conv.padding_for(height, width)
    top, left, bottom, right = padding
    size = (
        conv_output_size(height, conv.kernel, conv.stride, top, bottom),
        conv_output_size(width, conv.kernel, conv.stride, left, right),
    )
    return Layer(
        name=conv.name,
        block=block,
        operator=operator,
        x=x,
        y=Value(conv.name, (conv.out_channels, *size)),
        activation=conv.activation,
        kernel=conv.kernel,
        stride=conv.stride,
        padding=padding,
        **more,
    )


def _fused_mbconv_layers(block: FoldedFusedBlock, x: Value) -> Iterator[Layer]:
    expand = _conv_layer(block.name, "dense_conv", block.expand, x)
    yield expand
    residual = x if block.residual else None
    yield _conv_layer(block.name, "pointwise_conv", block.project, expand.y, residual=residual)


def _expansion_fused_layers(block: FoldedBlock, x: Value) -> Iterator[Layer]:
    se, gate = block.squeeze_excite, None
    operator = "expand_depthwise" if se is None else "expand_depthwise_pool"
    fused = _conv_layer(block.name, operator, block.depthwise, x, expand_activation=block.expand.activation)
    if se is not None:
        channels, height, width = fused.y.shape
        sums = Value(f"{block.name}.sums", (channels, pool_tiles(height, width), 1), single=True)
        fused = replace(fused, sums=sums)
        gate = Value(f"{block.name}.gates", (channels, 1, 1), single=True)
    yield fused
    if gate is not None:
        yield Layer(
            name=f"{block.name}.squeeze_excite",
            block=block.name,
            operator="squeeze_excite_gate",
            x=sums,
            y=gate,
            activation=se.activation,
            squeeze=se.squeeze,
            gate_function=se.gate,
            count=height * width,
        )
    residual = x if block.residual else None
    yield _conv_layer(block.name, "pointwise_conv", block.project, fused.y, gate=gate, residual=residual)


def _three_kernel_layers(block: FoldedBlock, x: Value) -> Iterator[Layer]:
    hidden = x
    if block.expand is not None:
        expand = _conv_layer(block.name, "pointwise_conv", block.expand, x)
        yield expand
        hidden = expand.y
    se, gates = block.squeeze_excite, None
    if se is None:
        depthwise = _conv_layer(block.name, "depthwise_conv", block.depthwise, hidden)
    else:
        gates = Value(f"{block.name}.gates", (block.depthwise.out_channels, 1, 1), single=True)
        depthwise = _conv_layer(
            block.name,
            "depthwise_conv_gate",
            block.depthwise,
            hidden,
            gates=gates,
            squeeze=se.squeeze,
            se_activation=se.activation,
            gate_function=se.gate,
        )
    yield depthwise
    residual = x if block.residual else None
    yield _conv_layer(block.name, "pointwise_conv", block.project, depthwise.y, gate=gates, residual=residual)


def _whole_block_layers(block: FoldedBlock, x: Value) -> Iterator[Layer]:
    se = block.squeeze_excite
    whole = _conv_layer(
        block.name,
        "mbconv",
        block.depthwise,
        x,
        residual=x if block.residual else None,
        expand_activation=None if block.expand is None else block.expand.activation,
        expanded=block.depthwise.out_channels,
    )
    if se is not None:
        whole = replace(whole, squeeze=se.squeeze, se_activation=se.activation, gate_function=se.gate)
    _, height, width = whole.y.shape
    y = Value(block.name, (block.project.out_channels, height, width))
    yield replace(whole, name=block.name, y=y)


_LAYERS = {
    BlockForm.THREE_KERNELS: _three_kernel_layers,
    BlockForm.EXPANSION_FUSED: _expansion_fused_layers,
    BlockForm.WHOLE: _whole_block_layers,
}
