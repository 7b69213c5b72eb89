"""Parameter names: complete and exact in every library, and conversion in every direction."""

from __future__ import annotations

import itertools

import pytest
import torch

from effnet_fast.models import convert_state_dict, create_model, list_models, model_config
from effnet_fast.models.naming import NAMINGS, detect_naming, key_map, structure_of

FAMILY = [name for name in list_models() if not name.startswith("tf_")]
LIBRARIES = {
    "timm": FAMILY,
    "torchvision": [
        *list_models("efficientnet_b[0-7]"),
        *list_models("efficientnetv2_[sml]"),
        *list_models("mobilenetv2_??[05]"),
    ],
    "efficientnet_pytorch": [*list_models("efficientnet_b*"), "efficientnet_l2"],
}


def meta_state(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return create_model(name).state_dict()


@pytest.mark.parametrize("name", list_models())
def test_our_names_are_the_models(name):
    with torch.device("meta"):
        model = create_model(name)
    names = key_map(structure_of(model.config), "effnet_fast")
    assert list(names) == list(names.values()) == list(model.state_dict())


@pytest.mark.parametrize(
    ("library", "name"), [(library, name) for library, names in LIBRARIES.items() for name in names]
)
def test_maps_are_strict_both_ways(library, name, peer_model):
    """Every name and shape of the library's state dict, no more and no fewer, there and back."""
    ours = meta_state(name)
    theirs = peer_model(library, name).state_dict()
    assert detect_naming(theirs) == library

    exported = convert_state_dict(ours, to=library)
    assert {key: value.shape for key, value in exported.items()} == {
        key: value.shape for key, value in theirs.items()
    }
    imported = convert_state_dict(theirs, to="effnet_fast")
    assert [(key, value.shape) for key, value in imported.items()] == [
        (key, value.shape) for key, value in ours.items()
    ]


@pytest.mark.parametrize("library", ["torchvision", "efficientnet_pytorch"])
def test_b0_has_360_entries(library, peer_model):
    assert (
        len(peer_model(library, "efficientnet_b0").state_dict()) == len(meta_state("efficientnet_b0")) == 360
    )


def test_lite_has_efficientnet_pytorch_names_without_squeeze_excite():
    converted = convert_state_dict(meta_state("efficientnet_lite0"), to="efficientnet_pytorch")
    assert len(converted) == 296
    assert not any("_se_" in key for key in converted)
    assert list(convert_state_dict(converted, to="effnet_fast")) == list(meta_state("efficientnet_lite0"))


@pytest.mark.parametrize(("source", "destination"), list(itertools.permutations(NAMINGS, 2)))
def test_conversion_between_any_two_moves_every_tensor(source, destination):
    assert_moves_every_tensor("efficientnet_b3", source, destination)


@pytest.mark.parametrize(
    ("source", "destination"), list(itertools.permutations(["effnet_fast", "timm", "torchvision"], 2))
)
@pytest.mark.parametrize("name", ["efficientnetv2_s", "mobilenetv2_100", "mobilenetv2_050"])
def test_conversion_of_v2_and_mobilenetv2(name, source, destination):
    """MobileNetV2 of width 0.5 has two stages of one width, unparted by torchvision's running index."""
    assert_moves_every_tensor(name, source, destination)


def assert_moves_every_tensor(name, source, destination):
    start = convert_state_dict(meta_state(name), to=source)
    there = convert_state_dict(start, to=destination)
    back = convert_state_dict(there, to=source)
    assert {key: id(value) for key, value in back.items()} == {key: id(value) for key, value in start.items()}
    assert len(there) == len(start)
    assert detect_naming(there) == destination
    ours = convert_state_dict(there, to="effnet_fast")
    assert list(ours) == list(meta_state(name))


@pytest.mark.parametrize("library", NAMINGS)
def test_a_state_dict_without_classifier_or_counters_can_be_converted(library):
    state = {
        key: value
        for key, value in convert_state_dict(meta_state("efficientnet_b0"), to=library).items()
        if not key.endswith("num_batches_tracked") and not key.startswith(("classifier", "_fc"))
    }
    assert len(convert_state_dict(state, to="timm")) == len(state)


def test_every_stage_begins_with_another_width():
    """What finds the stages in efficientnet_pytorch's running block index."""
    for name in list_models("efficientnet_*"):
        for block in model_config(name).blocks():
            assert (block.in_channels != block.out_channels) == (block.index == 0), (name, block)


def test_conversion_errors():
    state = meta_state("efficientnet_b0")
    with pytest.raises(ValueError, match="the names must be those of one of effnet_fast, timm.*got 'keras'"):
        convert_state_dict(state, to="keras")
    with pytest.raises(ValueError, match=r"names of none of .*first are layer1.0.conv1.weight"):
        convert_state_dict({"layer1.0.conv1.weight": torch.zeros(1)}, to="timm")
    with pytest.raises(ValueError, match=r"names of none of .*\(none\)"):
        convert_state_dict({}, to="timm")
    for name in ("efficientnet_lite0", "mobilenetv2_110d"):
        with pytest.raises(
            ValueError, match="torchvision has no EfficientNet without squeeze-excite, and no"
        ):
            convert_state_dict(meta_state(name), to="torchvision")
    with pytest.raises(ValueError, match=r"efficientnet_pytorch has no EfficientNetV2 .*kind conv and fused"):
        convert_state_dict(meta_state("efficientnetv2_b0"), to="efficientnet_pytorch")
    with pytest.raises(ValueError, match="efficientnet_pytorch has no MobileNetV2"):
        convert_state_dict(meta_state("mobilenetv2_100"), to="efficientnet_pytorch")
    with pytest.raises(ValueError, match=r"unknown extra\.weight"):
        convert_state_dict({**state, "extra.weight": torch.zeros(1)}, to="timm")
    incomplete = {key: value for key, value in state.items() if key != "stages.2.1.project.conv.weight"}
    with pytest.raises(ValueError, match=r"missing stages\.2\.1\.project\.conv\.weight"):
        convert_state_dict(incomplete, to="timm")
    gap = {key: value for key, value in state.items() if not key.startswith("stages.2.")}
    with pytest.raises(ValueError, match="not a complete EfficientNet with effnet_fast names"):
        convert_state_dict(gap, to="timm")


@pytest.mark.parametrize(
    ("name", "library", "lost", "missing"),
    [
        ("efficientnetv2_s", "timm", "blocks.0.1.conv.", r"blocks\.0\.1\.conv\.weight"),
        (
            "efficientnetv2_s",
            "torchvision",
            "features.2.1.block.1.0.",
            r"features\.2\.1\.block\.1\.0\.weight",
        ),
        ("mobilenetv2_100", "torchvision", "features.5.conv.2.", r"features\.5\.conv\.2\.weight"),
        ("mobilenetv2_100", "torchvision", "features.5.", r"features\.5\.conv\."),
        ("mobilenetv2_100", "torchvision", "features.17.", r"features\.17\.0\.weight"),
    ],
)
def test_missing_parts_of_other_blocks_are_named(name, library, lost, missing):
    state = convert_state_dict(meta_state(name), to=library)
    damaged = {key: value for key, value in state.items() if not key.startswith(lost)}
    assert len(damaged) < len(state)
    with pytest.raises(ValueError, match=f"not a complete EfficientNet with {library} names: .*{missing}"):
        convert_state_dict(damaged, to="effnet_fast")
