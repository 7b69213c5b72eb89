"""Parameter names of EfficientNet in timm, torchvision, efficientnet_pytorch and here, and maps between them.

A network is described by its *structure*: for every stage, for every block, whether it has an expansion and
whether it has a squeeze-excite. Structure and naming together give the name of every parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from effnet_fast.models.config import EfficientNetConfig

__all__ = ["NAMINGS", "convert_state_dict", "detect_naming", "key_map", "optional", "structure_of"]

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
    "expand.conv": CONV,
    "expand.norm": NORM,
    "depthwise.conv": CONV,
    "depthwise.norm": NORM,
    "squeeze_excite.reduce": LINEAR,
    "squeeze_excite.expand": LINEAR,
    "project.conv": CONV,
    "project.norm": NORM,
}


@dataclass(frozen=True)
class Block:
    """Which optional parts a block has."""

    expands: bool
    squeezes: bool


Structure = tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class Naming:
    """How one library names the parts. Names of parts are in the order of OUTER_PARTS and BLOCK_PARTS.

    Attributes:
        library: its name, as accepted by `convert_state_dict(to=...)`.
        outer: the parts outside the stages; {last} is the number of stages + 1.
        block: the prefix of a block; {stage} and {index} count from 0, {stage_from_1} from 1, {flat} runs
            over all stages.
        expanding: the parts of a block with an expansion.
        separable: the parts of a block without; "" stands for the expansion's.
        block_pattern: recognises a block's prefix in a state dict.
        squeeze_required: the library has no block without squeeze-excite.
    """

    library: str
    outer: tuple[str, ...]
    block: str
    expanding: tuple[str, ...]
    separable: tuple[str, ...]
    block_pattern: str
    squeeze_required: bool = False

    @property
    def expanding_only(self) -> set[str]:
        """Names that only a block with an expansion has."""
        return set(self.expanding) - set(self.separable)

    def outer_names(self, stages: int) -> dict[str, str]:
        return {
            ours: name.format(last=stages + 1) for ours, name in zip(OUTER_PARTS, self.outer, strict=True)
        }

    def block_names(self, block: Block) -> dict[str, str]:
        """Our name of each part that the block has -> the library's."""
        names = self.expanding if block.expands else self.separable
        return {
            ours: name
            for ours, name in zip(BLOCK_PARTS, names, strict=True)
            if (block.expands or not ours.startswith("expand.")) and (block.squeezes or "squeeze" not in ours)
        }


NAMINGS: dict[str, Naming] = {
    naming.library: naming
    for naming in (
        Naming(
            library="effnet_fast",
            outer=tuple(OUTER_PARTS),
            block="stages.{stage}.{index}.",
            expanding=tuple(BLOCK_PARTS),
            separable=("", "", *tuple(BLOCK_PARTS)[2:]),
            block_pattern=r"stages\.(?P<stage>\d+)\.(?P<index>\d+)\.",
        ),
        # bn1 is the expansion's batch norm in one kind of block and the depthwise convolution's in the other,
        # and conv_pw the expansion in one and the projection in the other.
        Naming(
            library="timm",
            outer=("conv_stem", "bn1", "conv_head", "bn2", "classifier"),
            block="blocks.{stage}.{index}.",
            expanding=(
                *("conv_pw", "bn1", "conv_dw", "bn2"),
                *("se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"),
            ),
            separable=(
                *("", "", "conv_dw", "bn1"),
                *("se.conv_reduce", "se.conv_expand", "conv_pw", "bn2"),
            ),
            block_pattern=r"blocks\.(?P<stage>\d+)\.(?P<index>\d+)\.",
        ),
        # features.0 is the stem and features.{last} the head, so stage s is features.{s + 1}.
        Naming(
            library="torchvision",
            outer=("features.0.0", "features.0.1", "features.{last}.0", "features.{last}.1", "classifier.1"),
            block="features.{stage_from_1}.{index}.block.",
            expanding=("0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"),
            separable=("", "", "0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"),
            block_pattern=r"features\.(?P<stage_from_1>\d+)\.(?P<index>\d+)\.block\.",
            squeeze_required=True,
        ),
        Naming(
            library="efficientnet_pytorch",
            outer=("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
            block="_blocks.{flat}.",
            expanding=(
                *("_expand_conv", "_bn0", "_depthwise_conv", "_bn1"),
                *("_se_reduce", "_se_expand", "_project_conv", "_bn2"),
            ),
            separable=(
                *("", "", "_depthwise_conv", "_bn1"),
                *("_se_reduce", "_se_expand", "_project_conv", "_bn2"),
            ),
            block_pattern=r"_blocks\.(?P<flat>\d+)\.",
        ),
    )
}


def structure_of(config: EfficientNetConfig) -> Structure:
    """The structure of a configured network."""
    stages: list[list[Block]] = [[] for _ in config.stages]
    for block in config.blocks():
        stages[block.stage].append(Block(block.expands, block.squeeze_channels is not None))
    return tuple(tuple(stage) for stage in stages)


def key_map(structure: Structure, library: str) -> dict[str, str]:
    """Our name -> the library's, for every parameter and buffer of a network, in our state dict's order.

    Raises: ValueError for a library or a structure without names.
    """
    naming = _naming(library)
    if naming.squeeze_required and not all(block.squeezes for stage in structure for block in stage):
        raise ValueError(
            f"{library} has no EfficientNet without squeeze-excite, so it has no names for this one"
        )
    outer = naming.outer_names(len(structure))
    parts: list[tuple[str, str, tuple[str, ...]]] = []

    def add_outer(*ours: str) -> None:
        parts.extend((name, outer[name], OUTER_PARTS[name]) for name in ours)

    add_outer("stem.conv", "stem.norm")
    flat = 0
    for stage, blocks in enumerate(structure):
        for index, block in enumerate(blocks):
            prefix = naming.block.format(stage=stage, stage_from_1=stage + 1, index=index, flat=flat)
            for ours, name in naming.block_names(block).items():
                parts.append((f"stages.{stage}.{index}.{ours}", prefix + name, BLOCK_PARTS[ours]))
            flat += 1
    add_outer("head.conv", "head.norm", "classifier")
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs, leaves in parts for leaf in leaves}


def detect_naming(keys: Mapping[str, object]) -> str | None:
    """The library whose stem and blocks `keys` are named after, None if there is none."""
    for library, naming in NAMINGS.items():
        has_block = any(re.match(naming.block_pattern, key) for key in keys)
        if has_block and f"{naming.outer[0]}.weight" in keys:
            return library
    return None


def optional(key: str) -> bool:
    """True for an entry that a state dict may lack: the batch counter, which no computation here uses."""
    return key.endswith(".num_batches_tracked")


def convert_state_dict(state: Mapping[str, torch.Tensor], *, to: str) -> dict[str, torch.Tensor]:
    """A state dict of an EfficientNet (B0..B8, L2, Lite) under the names of another library.

    Args:
        state: names of effnet_fast, timm, torchvision or efficientnet_pytorch; which one is detected.
        to: "effnet_fast", "timm", "torchvision" or "efficientnet_pytorch".

    Returns: a new dict with the same tensors, in the order of effnet_fast's own state dict. Batch counters
    (`num_batches_tracked`) are there if `state` has them; the classifier too.

    Raises: ValueError if `to` does not exist, the names are of none of the libraries, or any is missing or
        unknown.
    """
    _naming(to)
    source = detect_naming(state)
    if source is None:
        raise ValueError(
            f"state has names of none of {', '.join(NAMINGS)}; its first are "
            f"{', '.join(list(state)[:4]) or '(none)'}"
        )
    structure = _read_structure(state, NAMINGS[source])
    theirs, targets = key_map(structure, source), key_map(structure, to)
    missing = [
        name
        for ours, name in theirs.items()
        if name not in state and not optional(name) and not ours.startswith("classifier.")
    ]
    unknown = sorted(set(state) - set(theirs.values()))
    if missing or unknown:
        raise ValueError(
            f"state is not a complete EfficientNet with {source} names: "
            f"missing {', '.join(missing[:4]) or 'nothing'}; unknown {', '.join(unknown[:4]) or 'nothing'}"
        )
    return {targets[ours]: state[name] for ours, name in theirs.items() if name in state}


def _naming(library: str) -> Naming:
    if library not in NAMINGS:
        raise ValueError(f"the names must be those of one of {', '.join(NAMINGS)}, got {library!r}")
    return NAMINGS[library]


def _read_structure(state: Mapping[str, torch.Tensor], naming: Naming) -> Structure:
    """The structure that the names in `state` describe. Gaps in the numbering show up later, as missing."""
    prefixes: dict[tuple[int, ...], str] = {}
    for key in state:
        match = re.match(naming.block_pattern, key)
        if match:
            prefixes[tuple(int(number) for number in match.groups())] = match.group()

    stages: list[list[Block]] = []
    position = None
    for numbers, prefix in sorted(prefixes.items()):
        expands = any(f"{prefix}{part}.weight" in state for part in naming.expanding_only)
        names = naming.block_names(Block(expands, squeezes=True))
        block = Block(expands, squeezes=f"{prefix}{names['squeeze_excite.reduce']}.weight" in state)
        if len(numbers) == 2:
            starts_stage = numbers[0] != position
            position = numbers[0]
        else:  # one running index over all stages: in this family a stage begins where the width changes
            starts_stage = not stages or _changes_width(state, prefix, names)
        if starts_stage:
            stages.append([])
        stages[-1].append(block)
    return tuple(tuple(stage) for stage in stages)


def _changes_width(state: Mapping[str, torch.Tensor], prefix: str, names: dict[str, str]) -> bool:
    """Whether the block's output has another width than its input (names that are missing: no)."""
    entry, axis = ("expand.conv", 1) if "expand.conv" in names else ("depthwise.conv", 0)
    first = state.get(f"{prefix}{names[entry]}.weight")
    last = state.get(f"{prefix}{names['project.conv']}.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return False
    return first.shape[axis] != last.shape[0]
