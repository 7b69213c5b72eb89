"""How timm, torchvision, efficientnet_pytorch and this package name the parts of a network, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effnet_fast.models.families import MOBILENETV2_STAGES

__all__ = [
    "BLOCK_PARTS",
    "CANDIDATES",
    "MOBILENETV2",
    "NAMINGS",
    "OUTER_PARTS",
    "TORCHVISION_MOBILENETV2",
    "Block",
    "Naming",
    "Structure",
]

CONV = ("weight",)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LINEAR = ("weight", "bias")

# The parts of a network outside its stages, and of a block: our name and what the part holds.
OUTER_PARTS = {
    "stem.conv": CONV,
    "stem.norm": NORM,
    "head.conv": CONV,
    "head.norm": NORM,
    "classifier": LINEAR,
}
BLOCK_PARTS = {
    "conv.conv": CONV,
    "conv.norm": NORM,
    "expand.conv": CONV,
    "expand.norm": NORM,
    "depthwise.conv": CONV,
    "depthwise.norm": NORM,
    "squeeze_excite.reduce": LINEAR,
    "squeeze_excite.expand": LINEAR,
    "project.conv": CONV,
    "project.norm": NORM,
}
# Our names of the parts of each kind of block, in their order in a state dict. "separable" is MBConv without
# expansion.
_PARTS = tuple(BLOCK_PARTS)
KIND_PARTS = {
    "mbconv": _PARTS[2:],
    "separable": _PARTS[4:],
    "fused": (*_PARTS[2:4], *_PARTS[8:]),
    "conv": _PARTS[:2],
}


@dataclass(frozen=True)
class Block:
    """What a block is made of: "mbconv", "separable", "fused" or "conv", with squeeze-excite or without."""

    kind: str
    squeezes: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Our names of its parts."""
        return tuple(part for part in KIND_PARTS[self.kind] if self.squeezes or "squeeze" not in part)


Structure = tuple[tuple[Block, ...], ...]

# Every block there can be.
CANDIDATES = (
    *(Block(kind, squeezes) for squeezes in (True, False) for kind in ("mbconv", "separable")),
    Block("fused"),
    Block("conv"),
)
# MobileNetV2 of any width and its own depths.
MOBILENETV2: Structure = tuple(
    (Block("separable" if row.expand == 1 else "mbconv"),) * row.layers for row in MOBILENETV2_STAGES
)


@dataclass(frozen=True)
class Naming:
    """How one library names the parts.

    Attributes:
        library: its name, as accepted by `convert_state_dict(to=...)`.
        outer: the parts outside the stages, in the order of OUTER_PARTS; {last} is the number of stages + 1,
            {last_flat} the number of blocks + 1.
        block: the prefix of a block; {stage}, {index} and {flat} count from 0, {stage_from_1} and
            {flat_from_1} from 1; {flat} runs over all stages.
        kinds: by kind of block, its parts in the order of KIND_PARTS; one that the library lacks is absent.
        block_pattern: recognises a block's prefix in a state dict.
        depths: blocks of each stage, where a running index does not tell; None: the widths tell.
    """

    library: str
    outer: tuple[str, ...]
    block: str
    kinds: Mapping[str, tuple[str, ...]]
    block_pattern: str
    depths: tuple[int, ...] | None = None

    def outer_names(self, structure: Structure) -> dict[str, str]:
        """Our name of each part outside the stages -> the library's."""
        numbers = {"last": len(structure) + 1, "last_flat": sum(map(len, structure)) + 1}
        return {ours: name.format(**numbers) for ours, name in zip(OUTER_PARTS, self.outer, strict=True)}

    def block_names(self, block: Block) -> dict[str, str]:
        """Our name of each part that the block has -> the library's."""
        names = dict(zip(KIND_PARTS[block.kind], self.kinds[block.kind], strict=True))
        return {part: names[part] for part in block.parts}


def _depthwise_names(*names: str) -> dict[str, tuple[str, ...]]:
    """MBConv's part names, and the same without the expansion's."""
    return {"mbconv": names, "separable": names[2:]}


NAMINGS: dict[str, Naming] = {
    naming.library: naming
    for naming in (
        Naming(
            library="effnet_fast",
            outer=tuple(OUTER_PARTS),
            block="stages.{stage}.{index}.",
            kinds=KIND_PARTS,
            block_pattern=r"stages\.(?P<stage>\d+)\.(?P<index>\d+)\.",
        ),
        # bn1 is the expansion's batch norm in one kind of block and the depthwise convolution's in the other,
        # and conv_pw the expansion in one and the projection in the other.
        Naming(
            library="timm",
            outer=("conv_stem", "bn1", "conv_head", "bn2", "classifier"),
            block="blocks.{stage}.{index}.",
            kinds={
                "mbconv": (
                    *("conv_pw", "bn1", "conv_dw", "bn2"),
                    *("se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"),
                ),
                "separable": ("conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2"),
                "fused": ("conv_exp", "bn1", "conv_pwl", "bn2"),
                "conv": ("conv", "bn1"),
            },
            block_pattern=r"blocks\.(?P<stage>\d+)\.(?P<index>\d+)\.",
        ),
        # features.0 is the stem and features.{last} the head, so stage s is features.{s + 1}.
        Naming(
            library="torchvision",
            outer=("features.0.0", "features.0.1", "features.{last}.0", "features.{last}.1", "classifier.1"),
            block="features.{stage_from_1}.{index}.block.",
            kinds={
                "mbconv": ("0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"),
                "separable": ("0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"),
                "fused": ("0.0", "0.1", "1.0", "1.1"),
                "conv": ("0.0", "0.1"),
            },
            block_pattern=r"features\.(?P<stage_from_1>\d+)\.(?P<index>\d+)\.block\.",
        ),
        Naming(
            library="efficientnet_pytorch",
            outer=("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
            block="_blocks.{flat}.",
            kinds=_depthwise_names(
                *("_expand_conv", "_bn0", "_depthwise_conv", "_bn1"),
                *("_se_reduce", "_se_expand", "_project_conv", "_bn2"),
            ),
            block_pattern=r"_blocks\.(?P<flat>\d+)\.",
        ),
    )
}

# torchvision's MobileNetV2 is a class of its own. It has no depth multiplier, and no squeeze-excite, whose
# names ("") are never asked for.
TORCHVISION_MOBILENETV2 = Naming(
    library="torchvision",
    outer=(
        *("features.0.0", "features.0.1", "features.{last_flat}.0", "features.{last_flat}.1"),
        "classifier.1",
    ),
    block="features.{flat_from_1}.conv.",
    kinds={
        "mbconv": ("0.0", "0.1", "1.0", "1.1", "", "", "2", "3"),
        "separable": ("0.0", "0.1", "", "", "1", "2"),
    },
    block_pattern=r"features\.(?P<flat_from_1>\d+)\.conv\.",
    depths=tuple(row.layers for row in MOBILENETV2_STAGES),
)
