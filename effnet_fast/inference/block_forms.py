"""The forms that an MBConv block can take: as how many operators it runs."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from effnet_fast.inference.folding import FoldedBlock, FoldedConvBlock, FoldedFusedBlock

__all__ = ["BlockForm", "Forms", "form_of", "possible_forms"]


class BlockForm(enum.Enum):
    """What is one operator in an MBConv block; see `effnet_fast.inference.layers` for the operators."""

    THREE_KERNELS = "three kernels"
    EXPANSION_FUSED = "expansion fused"
    WHOLE = "whole block"

    def __str__(self) -> str:
        return self.value


Forms = BlockForm | Mapping[str, BlockForm]
"""One form for all blocks, or {block name: form}, `THREE_KERNELS` for those it does not name."""


def possible_forms(block: FoldedBlock | FoldedFusedBlock | FoldedConvBlock) -> tuple[BlockForm, ...]:
    """The forms that `block` can take; none for a block that is no MBConv.

    Without an expansion there is none to fuse. `mbconv` has one activation for the expansion and the
    depthwise convolution, and none after the projection, so a block that differs cannot be one operator.
    """
    if not isinstance(block, FoldedBlock):
        return ()
    forms = [BlockForm.THREE_KERNELS]
    expand = block.expand
    if expand is not None:
        forms.append(BlockForm.EXPANSION_FUSED)
    same = expand is None or expand.activation == block.depthwise.activation
    if same and block.project.activation == "identity":
        forms.append(BlockForm.WHOLE)
    return tuple(forms)


def form_of(block: FoldedBlock, forms: Forms) -> BlockForm:
    """The form of `block` where `forms` are asked for; three kernels if it cannot take the one asked for."""
    asked = forms if isinstance(forms, BlockForm) else forms.get(block.name, BlockForm.THREE_KERNELS)
    return asked if asked in possible_forms(block) else BlockForm.THREE_KERNELS
