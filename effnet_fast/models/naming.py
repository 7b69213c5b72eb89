"""Maps between the parameter names of timm, torchvision, efficientnet_pytorch and this package.

A network is described by its *structure*: for every stage, for every block, its kind and whether it has a
squeeze-excite. Structure and library together give the name of every parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.libraries import (
    BLOCK_PARTS,
    CANDIDATES,
    MOBILENETV2,
    NAMINGS,
    OUTER_PARTS,
    TORCHVISION_MOBILENETV2,
    Block,
    Naming,
    Structure,
)

__all__ = ["NAMINGS", "convert_state_dict", "detect_naming", "key_map", "optional", "structure_of"]


def structure_of(config: EfficientNetConfig) -> Structure:
    """The structure of a configured network."""
    stages: list[list[Block]] = [[] for _ in config.stages]
    for block in config.blocks():
        kind = "separable" if block.kind == "mbconv" and not block.expands else block.kind
        stages[block.stage].append(Block(kind, block.squeeze_channels is not None))
    return tuple(tuple(stage) for stage in stages)


def key_map(structure: Structure, library: str) -> dict[str, str]:
    """Our name -> the library's name, for every parameter and buffer, in the order of our state dict.

    Raises: ValueError if the library does not exist, or has no network of this structure.
    """
    return _names(structure, _naming_of(structure, library))


def detect_naming(keys: Mapping[str, object]) -> str | None:
    """The library whose stem and blocks `keys` are named after, None if there is none."""
    naming = _detect(keys)
    return None if naming is None else naming.library


def optional(key: str) -> bool:
    """True for an entry that a state dict may lack: the batch counter, which no computation here uses."""
    return key.endswith(".num_batches_tracked")


def convert_state_dict(state: Mapping[str, torch.Tensor], *, to: str) -> dict[str, torch.Tensor]:
    """A state dict of an EfficientNet (B0..B8, L2, Lite, V2) or a MobileNetV2 under another library's names.

    Args:
        state: names of effnet_fast, timm, torchvision or efficientnet_pytorch; which one is detected.
        to: "effnet_fast", "timm", "torchvision" or "efficientnet_pytorch".

    Returns: a new dict with the same tensors, in the order of effnet_fast's own state dict. Batch counters
    (`num_batches_tracked`) are there if `state` has them; the classifier too.

    Raises: ValueError if `to` does not exist or has no such network, the names are of none of the libraries,
        or any is missing or unknown.
    """
    _check_library(to)
    source = _detect(state)
    if source is None:
        raise ValueError(
            f"state has names of none of {', '.join(NAMINGS)}; its first are "
            f"{', '.join(list(state)[:4]) or '(none)'}"
        )
    structure = _read_structure(state, source)
    theirs = _names(structure, source)
    missing = [
        name
        for ours, name in theirs.items()
        if name not in state and not optional(name) and not ours.startswith("classifier.")
    ]
    unknown = sorted(set(state) - set(theirs.values()))
    if missing or unknown:
        raise ValueError(
            f"state is not a complete EfficientNet with {source.library} names: "
            f"missing {', '.join(missing[:4]) or 'nothing'}; unknown {', '.join(unknown[:4]) or 'nothing'}"
        )
    targets = key_map(structure, to)
    return {targets[ours]: state[name] for ours, name in theirs.items() if name in state}


def _check_library(library: str) -> None:
    if library not in NAMINGS:
        raise ValueError(f"the names must be those of one of {', '.join(NAMINGS)}, got {library!r}")


def _naming_of(structure: Structure, library: str) -> Naming:
    """How `library` names a network of this structure; ValueError where it has none."""
    _check_library(library)
    naming = NAMINGS[library]
    blocks = {block for stage in structure for block in stage}
    if library == "torchvision":
        if structure == MOBILENETV2:
            return TORCHVISION_MOBILENETV2
        if any(block.kind in ("mbconv", "separable") and not block.squeezes for block in blocks):
            raise ValueError(
                "torchvision has no EfficientNet without squeeze-excite, and no MobileNetV2 of other depths "
                "than the published, so it has no names for this one"
            )
    if absent := sorted({block.kind for block in blocks} - set(naming.kinds)):
        raise ValueError(
            f"{library} has no EfficientNetV2 (blocks of kind {' and '.join(absent)}), "
            "so it has no names for this one"
        )
    # Its running index of blocks does not tell where a stage begins that is as wide as the one before.
    if library == "efficientnet_pytorch" and structure == MOBILENETV2:
        raise ValueError(f"{library} has no MobileNetV2, so it has no names for this one")
    return naming


def _names(structure: Structure, naming: Naming) -> dict[str, str]:
    outer = naming.outer_names(structure)
    parts: list[tuple[str, str, tuple[str, ...]]] = []

    def add_outer(*ours: str) -> None:
        parts.extend((name, outer[name], OUTER_PARTS[name]) for name in ours)

    add_outer("stem.conv", "stem.norm")
    flat = 0
    for stage, blocks in enumerate(structure):
        for index, block in enumerate(blocks):
            prefix = naming.block.format(
                stage=stage, stage_from_1=stage + 1, index=index, flat=flat, flat_from_1=flat + 1
            )
            for ours, name in naming.block_names(block).items():
                parts.append((f"stages.{stage}.{index}.{ours}", prefix + name, BLOCK_PARTS[ours]))
            flat += 1
    add_outer("head.conv", "head.norm", "classifier")
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs, leaves in parts for leaf in leaves}


def _detect(keys: Mapping[str, object]) -> Naming | None:
    for naming in (*NAMINGS.values(), TORCHVISION_MOBILENETV2):
        has_block = any(re.match(naming.block_pattern, key) for key in keys)
        if has_block and f"{naming.outer[0]}.weight" in keys:
            return naming
    return None


def _read_structure(state: Mapping[str, torch.Tensor], naming: Naming) -> Structure:
    """The structure that the names in `state` describe. Gaps in the numbering show up later, as missing."""
    parts: dict[tuple[int, ...], set[str]] = {}
    prefixes: dict[tuple[int, ...], str] = {}
    for key in state:
        match = re.match(naming.block_pattern, key)
        if match:
            position = tuple(int(number) for number in match.groups())
            prefixes[position] = match.group()
            parts.setdefault(position, set()).add(key[match.end() :].rpartition(".")[0])

    stages: list[list[Block]] = []
    last_stage = None
    for flat, (position, names) in enumerate(sorted(parts.items())):
        block = _most_similar_block(names, naming)
        if len(position) == 2:
            starts_stage = position[0] != last_stage
            last_stage = position[0]
        elif naming.depths is not None:
            starts_stage = flat in _first_blocks(naming.depths)
        else:  # one running index over all stages: in this family a stage begins where the width changes
            starts_stage = not stages or _changes_width(state, prefixes[position], naming.block_names(block))
        if starts_stage:
            stages.append([])
        stages[-1].append(block)
    return tuple(tuple(stage) for stage in stages)


def _most_similar_block(names: set[str], naming: Naming) -> Block:
    """The block whose parts are `names`, or differ least from them; what differs is missing or unknown."""
    candidates = [block for block in CANDIDATES if block.kind in naming.kinds]
    return min(candidates, key=lambda block: len(names ^ set(naming.block_names(block).values())))


def _first_blocks(depths: tuple[int, ...]) -> set[int]:
    return {sum(depths[:stage]) for stage in range(len(depths))}


def _changes_width(state: Mapping[str, torch.Tensor], prefix: str, names: dict[str, str]) -> bool:
    """Whether the block's output has another width than its input (names that are missing: no)."""
    entry, axis = ("expand.conv", 1) if "expand.conv" in names else ("depthwise.conv", 0)
    first = state.get(f"{prefix}{names[entry]}.weight")
    last = state.get(f"{prefix}{names['project.conv']}.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return False
    return first.shape[axis] != last.shape[0]
