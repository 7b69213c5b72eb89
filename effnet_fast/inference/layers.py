"""A folded network as a list of fused operators with shapes: what the planner plans, free of tensors.

An MBConv block takes one of three forms (`BlockForm`):

- three kernels: the expansion; the depthwise convolution, which also pools and runs both layers of the
  squeeze-excite (`depthwise_conv_gate`; `depthwise_conv` without one); the projection, which applies the gate
  to its operand and adds the residual;
- expansion fused: `expand_depthwise_pool`, in which the expanded tensor never reaches memory;
  `squeeze_excite_gate`; the projection as before;
- whole block: `mbconv`, in which nothing but the block's input and output reaches memory.

A block without an expansion is the same in the first two. Where it is a network's first, it may also be
computed with the stem: `stem_block_sums` for `squeeze_excite_gate`, then `stem_block`, both of the images, so
that no map between the stem and the projection reaches memory. A FusedMBConv block is a `dense_conv` and a
projection in these, and `fused_mbconv` as a whole; a block of one convolution is a `dense_conv` that adds its
input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from effnet_fast.inference.block_forms import (
    BlockForm,
    Forms,
    form_of,
    starts_with_stem_block,
    whole_operator,
)
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
        gate, residual: further values that a projection reads; the residual of a whole block is its x.
        kernel, stride, padding, activation: of the convolution; in a whole block of the depthwise (`mbconv`)
            or dense one (`fused_mbconv`), in `stem_block` and `stem_block_sums` of the stem.
        expanded: channels of that convolution inside a whole block, and of the stem; 0 elsewhere, where they
            are y's.
        depthwise_kernel: of the convolution behind the stem in `stem_block` and `stem_block_sums`; else 0.
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
    depthwise_kernel: int = 0
    expand_activation: str | None = None
    squeeze: int = 0
    se_activation: str = "identity"
    gate_function: str = "sigmoid"
    count: int = 0

    @property
    def is_whole_block(self) -> bool:
        """Whether the operator computes a whole block, projection included."""
        return self.operator in ("mbconv", "fused_mbconv")

    @property
    def is_stem_block(self) -> bool:
        """Whether the operator computes the stem and the depthwise convolution behind it."""
        return self.operator in ("stem_block_sums", "stem_block")

    @property
    def convolved_size(self) -> tuple[int, int]:
        """Height and width of the map that the convolution writes, be it y or inside the operator."""
        _, height, width = self.x.shape
        top, left, bottom, right = self.padding
        return (
            conv_output_size(height, self.kernel, self.stride, top, bottom),
            conv_output_size(width, self.kernel, self.stride, left, right),
        )

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

    `forms` are the forms of its blocks, one for all or by their names. Those other than three kernels
    pay where the backend has a kernel for them.
    """
    image = Value(IMAGE, (network.in_channels, *image_size))
    if starts_with_stem_block(network, forms):
        layers, blocks = list(_stem_block_layers(network, image)), network.blocks[1:]
    else:
        layers, blocks = [_conv_layer("stem", "stem_conv", network.stem, image)], network.blocks
    for block in blocks:
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
    if isinstance(block, FoldedConvBlock):
        residual = x if block.residual else None
        return (_conv_layer(block.name, "dense_conv", block.conv, x, residual=residual),)
    form = form_of(block, forms)
    if isinstance(block, FoldedFusedBlock) and form is not BlockForm.WHOLE:
        return tuple(_fused_mbconv_layers(block, x))
    return tuple(_LAYERS[form](block, x))


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


def _stem_block_layers(network: FoldedNetwork, image: Value) -> Iterator[Layer]:
    block = network.blocks[0]
    se, gate = block.squeeze_excite, None
    stem = _conv_layer(block.name, "stem_conv", network.stem, image)
    channels, height, width = stem.y.shape
    both = replace(stem, expanded=channels, depthwise_kernel=block.depthwise.kernel)
    if se is not None:
        sums = Value(f"{block.name}.sums", (channels, pool_tiles(height, width), 1), single=True)
        gate = Value(f"{block.name}.gates", (channels, 1, 1), single=True)
        yield replace(both, operator="stem_block_sums", y=sums)
        yield _squeeze_excite_layer(block, sums, gate, height * width)
    y = Value(block.project.name, (block.project.out_channels, height, width))
    yield replace(both, name=block.name, operator="stem_block", y=y, gate=gate)


def _squeeze_excite_layer(block: FoldedBlock, sums: Value, gate: Value, count: int) -> Layer:
    se = block.squeeze_excite
    return Layer(
        name=f"{block.name}.squeeze_excite",
        block=block.name,
        operator="squeeze_excite_gate",
        x=sums,
        y=gate,
        activation=se.activation,
        squeeze=se.squeeze,
        gate_function=se.gate,
        count=count,
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
        yield _squeeze_excite_layer(block, sums, gate, height * width)
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


def _whole_block_layers(block: FoldedBlock | FoldedFusedBlock, x: Value) -> Iterator[Layer]:
    conv = block.expand if isinstance(block, FoldedFusedBlock) else block.depthwise
    whole = _conv_layer(
        block.name,
        whole_operator(block),
        conv,
        x,
        residual=x if block.residual else None,
        expanded=conv.out_channels,
    )
    if isinstance(block, FoldedBlock):
        se = block.squeeze_excite
        if block.expand is not None:
            whole = replace(whole, expand_activation=block.expand.activation)
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
