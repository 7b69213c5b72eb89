"""A folded network in a file: what is loaded is what was saved, to the bit, and saving is all or nothing."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from effnet_fast.inference import fold, folding
from effnet_fast.inference.folding import FoldedConv, FoldedConvBlock, FoldedLinear, FoldedNetwork
from effnet_fast.inference.storage import EngineFileError, load_network, save_network
from tests.networks import assert_same_network, every_kind_of_block, folded_conv

SETTINGS = {"batch_size": 4, "image_size": [33, 30], "mean": None, "input": "float", "x": {"y": [True, 0.5]}}


@pytest.fixture
def network() -> FoldedNetwork:
    return every_kind_of_block()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "net.engine"


@pytest.fixture
def saved(path, network) -> Path:
    save_network(path, network, SETTINGS)
    return path


def assert_round_trip(path: Path, network: FoldedNetwork) -> None:
    save_network(path, network, SETTINGS)
    got, settings = load_network(path)
    assert_same_network(got, network)
    assert settings == SETTINGS


def test_round_trip_of_every_kind_of_block(path, network):
    assert_round_trip(path, network)


@pytest.mark.parametrize("ratio", [0.25, None], ids=["squeeze-excite", "without"])
def test_round_trip_of_a_model(path, tiny_with, ratio):
    assert_round_trip(path, fold(tiny_with(squeeze_ratio=ratio)))


def test_every_bit_of_a_weight_is_kept(path, network):
    special = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 3.4e38])
    classifier = dataclasses.replace(network.classifier, bias=special)
    assert_round_trip(path, dataclasses.replace(network, classifier=classifier))


def test_tensors_of_any_strides_that_share_memory(path, network):
    memory = torch.randn(6, 10)
    classifier = FoldedLinear("classifier", memory.t()[:5], memory[0].expand(2, 10)[1, :5])
    got, _ = (
        save_network(path, dataclasses.replace(network, classifier=classifier), {}),
        load_network(path),
    )[1]
    assert torch.equal(got.classifier.weight, memory.t()[:5])
    assert torch.equal(got.classifier.bias, memory[0, :5])
    assert got.classifier.weight.is_contiguous()


def test_paths_as_text_and_links(saved, tmp_path, network):
    assert_same_network(load_network(str(saved))[0], network)
    link = tmp_path / "link"
    link.symlink_to(saved.name)
    save_network(str(link), network, {"new": 1})
    assert link.is_symlink()
    assert load_network(saved)[1] == {"new": 1}


def test_a_loaded_network_outlives_its_file(saved, network):
    got, _ = load_network(saved)
    with saved.open("r+b") as file:  # in place: mapped memory would see it
        file.write(bytes(saved.stat().st_size))
    saved.unlink()
    assert_same_network(got, network)


def test_loading_to_another_device(saved):
    # The one other device of every machine.
    got, _ = load_network(saved, "meta")
    assert got.stem.weight.is_meta
    assert got.blocks[0].squeeze_excite.w1.is_meta
    with pytest.raises(RuntimeError, match="nonsense"):
        load_network(saved, "nonsense")


@dataclasses.dataclass(frozen=True, eq=False)
class Extended(FoldedConvBlock):
    scale: float
    sizes: tuple[int, int]
    more: tuple[FoldedConv, ...]
    note: str | None
    wide: bool = False


def extended(**changes) -> Extended:
    values = {"scale": 0.25, "sizes": (3, -4), "more": (folded_conv("m", 2, 2),), "note": None, **changes}
    return Extended("e", folded_conv("e.conv", 4, 4), True, **values)


def test_a_new_kind_of_block_is_stored_as_it_is(path, network, monkeypatch):
    larger = dataclasses.replace(network, blocks=(*network.blocks, extended(wide=True)))
    with pytest.raises(TypeError, match=r"blocks\.4 cannot be stored: it is a Extended"):
        save_network(path, larger, {})
    monkeypatch.setattr(folding, "Extended", Extended, raising=False)
    assert_round_trip(path, larger)
    # For a version without it the file is sound, and not understood.
    monkeypatch.delattr(folding, "Extended")
    with pytest.raises(EngineFileError, match=r"not understood by effnet_fast .* class 'Extended'"):
        load_network(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": "0.25"},
        {"sizes": (1, 2, 3)},
        {"sizes": (1, True)},
        {"more": (None,)},
        {"note": 3},
        {"wide": 1},
    ],
    ids=str,
)
def test_fields_of_other_types_are_not_saved(path, network, monkeypatch, changes):
    monkeypatch.setattr(folding, "Extended", Extended, raising=False)
    field = next(iter(changes))
    with pytest.raises(TypeError, match=f"{field} of a Extended must be "):
        save_network(path, dataclasses.replace(network, blocks=(extended(**changes),)), {})
    assert not path.exists()


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_saving_needs_a_folder_and_a_file_name(tmp_path, network):
    with pytest.raises(IsADirectoryError, match=f"saved to a file, and {tmp_path} is a folder"):
        save_network(tmp_path, network, {})
    with pytest.raises(FileNotFoundError, match=f"folder {tmp_path / 'none'} does not exist"):
        save_network(tmp_path / "none" / "net.engine", network, {})
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ([1], TypeError, "settings must be a dictionary, got list"),
        ({"x": torch.float16}, TypeError, "settings must be values that JSON can hold: .*dtype"),
        ({"x": float("nan")}, ValueError, "settings must be values that JSON can hold"),
    ],
)
def test_settings_that_cannot_be_stored(path, network, settings, error, message):
    with pytest.raises(error, match=message):
        save_network(path, network, settings)
    assert not path.exists()


def test_networks_that_cannot_be_stored(path, network, tiny):
    with pytest.raises(TypeError, match="network must be a FoldedNetwork, got EfficientNet"):
        save_network(path, tiny, {})
    meta = dataclasses.replace(network.head, weight=network.head.weight.to("meta"))
    with pytest.raises(ValueError, match=r"in memory, got head\.weight on the meta device"):
        save_network(path, dataclasses.replace(network, head=meta), {})
    assert not path.exists()


@pytest.mark.parametrize("point", ["while writing", "after writing"])
def test_a_failure_leaves_the_old_file(saved, tmp_path, network, monkeypatch, point):
    before = saved.read_bytes()

    def write_half(tensors, file, metadata):
        file.write_bytes(before[: len(before) // 2])
        raise SafetensorError("no space left on device")

    def refuse(*paths):
        raise PermissionError("not now")

    if point == "while writing":
        monkeypatch.setattr("safetensors.torch.save_file", write_half)
        expected = pytest.raises(OSError, match="could not be written: no space left")
    else:
        monkeypatch.setattr(os, "replace", refuse)
        expected = pytest.raises(PermissionError, match="not now")
    with expected:
        save_network(saved, network, {"other": 1})
    assert files(tmp_path) == [saved.name]
    assert saved.read_bytes() == before


def test_the_file_is_as_readable_as_any_other(saved, tmp_path):
    (tmp_path / "other").touch()
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert files(tmp_path) == [saved.name, "other"]
