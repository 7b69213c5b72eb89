"""The forms that an MBConv or a FusedMBConv block can take: as how many operators it runs."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from effnet_fast.inference.folding import FoldedBlock, FoldedConvBlock, FoldedFusedBlock, FoldedNetwork

__all__ = ["BlockForm", "Forms", "form_of", "possible_forms", "starts_with_stem_block", "whole_operator"]


class BlockForm(enum.Enum):
    """What is one operator in a block; see `effnet_fast.inference.layers` for the operators.

    `THREE_KERNELS` is the form in which every convolution is a kernel: two of them in a FusedMBConv block.
    `WITH_STEM` is a form of a network's first block alone, see `starts_with_stem_block`.
    """

    THREE_KERNELS = "three kernels"
    EXPANSION_FUSED = "expansion fused"
    WHOLE = "whole block"
    WITH_STEM = "with the stem"

    def __str__(self) -> str:
        return self.value


Forms = BlockForm | Mapping[str, BlockForm]
"""One form for all blocks, or {block name: form}, `THREE_KERNELS` for those it does not name."""


def possible_forms(block: FoldedBlock | FoldedFusedBlock | FoldedConvBlock) -> tuple[BlockForm, ...]:
    """The forms that `block` can take; none for a block of one convolution.

    Without an expansion there is none to fuse. `mbconv` has one activation for the expansion and the
    depthwise convolution, and none after the projection, so a block that differs cannot be one operator.
    Neither has `fused_mbconv` one after the projection.
    """
    if isinstance(block, FoldedConvBlock):
        return ()
    forms = [BlockForm.THREE_KERNELS]
    if isinstance(block, FoldedFusedBlock):
        return (*forms, BlockForm.WHOLE) if block.project.activation == "identity" else tuple(forms)
    expand = block.expand
    if expand is not None:
        forms.append(BlockForm.EXPANSION_FUSED)
    same = expand is None or expand.activation == block.depthwise.activation
    if same and block.project.activation == "identity":
        forms.append(BlockForm.WHOLE)
    return tuple(forms)


def starts_with_stem_block(network: FoldedNetwork, forms: Forms) -> bool:
    """Whether `forms` ask for stem and first block together, and that block can be computed so.

    `stem_block` has no expansion, a depthwise convolution of stride 1 that keeps the map's size, one
    activation for both convolutions and none after the projection. A block that adds its input needs the map
    that is not stored.
    """
    if not network.blocks or not isinstance(network.blocks[0], FoldedBlock):
        return False
    block, stem = network.blocks[0], network.stem
    asked = forms if isinstance(forms, BlockForm) else forms.get(block.name)
    depthwise = block.depthwise
    return (
        asked is BlockForm.WITH_STEM
        and block.expand is None
        and not block.residual
        and depthwise.stride == 1
        and depthwise.activation == stem.activation
        and block.project.activation == "identity"
    )


def whole_operator(block: FoldedBlock | FoldedFusedBlock) -> str:
    """The operator that computes all of `block`."""
    return "fused_mbconv" if isinstance(block, FoldedFusedBlock) else "mbconv"


def form_of(block: FoldedBlock | FoldedFusedBlock, forms: Forms) -> BlockForm:
    """The form of `block` where `forms` are asked for; three kernels if it cannot take the one asked for."""
    asked = forms if isinstance(forms, BlockForm) else forms.get(block.name, BlockForm.THREE_KERNELS)
    return asked if asked in possible_forms(block) else BlockForm.THREE_KERNELS
