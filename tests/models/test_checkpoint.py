"""Reading weights files: wrappers, formats, damage, code."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import zipfile

import pytest
import safetensors.torch
import torch

from effnet_fast.models import WeightsError
from effnet_fast.models.checkpoint import read_state_dict, unwrap_state_dict

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(20)}
OTHER = {key: value + 1 for key, value in STATE.items()}


class RunsCode:
    """Unpickling it would create the file that it is given."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def assert_is_state(state):
    assert list(state) == list(STATE)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def prefixed(prefix, state=STATE):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
def test_pytorch_files(tmp_path, suffix):
    torch.save(STATE, tmp_path / f"weights{suffix}")
    assert_is_state(read_state_dict(tmp_path / f"weights{suffix}"))
    assert_is_state(read_state_dict(str(tmp_path / f"weights{suffix}")))


def test_older_pytorch_format(tmp_path):
    torch.save(STATE, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    assert_is_state(read_state_dict(tmp_path / "weights.pth"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_safetensors_are_known_by_content(tmp_path, suffix):
    safetensors.torch.save_file(STATE, tmp_path / f"weights{suffix}")
    state = read_state_dict(tmp_path / f"weights{suffix}")
    assert state.keys() == STATE.keys()
    assert torch.equal(state["a.weight"], STATE["a.weight"])


def test_file_without_checksums_is_accepted(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_is_state(read_state_dict(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, "epoch": 3, "best": torch.tensor(0.7)},
        {"model": STATE, "optimizer": {"state": {}}},
        {"model_state_dict": STATE},
        {"state_dict": prefixed("module.")},
        {"state_dict": prefixed("model.")},
        prefixed("_orig_mod.module."),
        {"model": {"state_dict": prefixed("module.")}},
        {"state_dict": OTHER, "state_dict_ema": STATE},
        {"model": OTHER, "model_ema": {"n_averaged": torch.tensor(5), **prefixed("module.")}},
        {"state_dict": STATE, "state_dict_ema": None},
    ],
    ids=[
        *("state_dict", "model", "model_state_dict", "data-parallel", "lightning", "compiled"),
        *("nested", "averaged", "averaged-model", "no-average"),
    ],
)
def test_wrappers_are_opened(content):
    assert_is_state(unwrap_state_dict(content, "state dict"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "here holds an empty state dict"),
        ({"state_dict": {}}, "here holds an empty state dict"),
        ([1, 2], "here holds a list, not a state dict"),
        (torch.zeros(3), "here holds a Tensor, not a state dict"),
        (
            {"epoch": 3, "loss": 0.1},
            "here is not a state dict of tensors: its entry 'epoch' is a int; .*state_dict",
        ),
        ({**STATE, "epoch": 3}, "its entry 'epoch' is a int"),
        ({1: torch.zeros(1)}, "its entry 1 is a Tensor"),
    ],
)
def test_what_is_not_a_state_dict_is_refused(content, message):
    with pytest.raises(WeightsError, match=message):
        unwrap_state_dict(content, "here")


def test_a_dict_inside_itself_is_refused():
    content = {"epoch": 1}
    content["model"] = content
    with pytest.raises(WeightsError, match="its entry 'epoch' is a int"):
        unwrap_state_dict(content, "here")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_file_and_folder(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    with pytest.raises(FileNotFoundError, match=f"none{suffix} does not exist"):
        read_state_dict(path)
    path.mkdir()
    with pytest.raises(WeightsError, match=f"none{suffix} is not a file"):
        read_state_dict(path)


def saved(tmp_path, kind):
    path = tmp_path / f"original.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "pth")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["pth", "legacy", "safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 9, 100, 0.5, -1])
def test_truncated_file_is_refused(tmp_path, kind, keep):
    content = saved(tmp_path, kind)
    path = tmp_path / ("damaged.safetensors" if kind == "safetensors" else "damaged.pth")
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(WeightsError, match=rf"weights file .*{path.name} is (damaged|empty)"):
        read_state_dict(path)


def test_any_changed_byte_of_a_weight_is_noticed(tmp_path):
    """torch.load alone accepts such a file."""
    content = bytearray(saved(tmp_path, "pth"))
    start = content.index(STATE["a.weight"].numpy().tobytes())
    content[start + 100] ^= 0x40
    path = tmp_path / "flipped.pth"
    path.write_bytes(content)
    assert isinstance(torch.load(path, weights_only=True), dict)
    with pytest.raises(WeightsError, match=r"flipped\.pth is damaged: Bad CRC-32"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["pth", "legacy", "safetensors"])
def test_random_damage_never_raises_anything_else(tmp_path, kind):
    content = saved(tmp_path, kind)
    rng = random.Random(0)
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    messages = []
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 4, 40])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(path.name in message for message in messages)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        bytes(range(256)),
        b"\x00" * 64,
    ],
    ids=["html", "git-lfs", "bytes", "zeros"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"weights\.pth is damaged or not a PyTorch checkpoint \(it begins with"
    ):
        read_state_dict(path)


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"weights\.pth is damaged or not a PyTorch checkpoint"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("save", ["torch", "legacy", "pickle"])
def test_code_is_refused_and_does_not_run(tmp_path, save):
    path, witness = tmp_path / "weights.pth", tmp_path / "ran"
    content = {"a": RunsCode(witness)}
    if save == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert not witness.exists()
    message = str(caught.value)
    assert str(path) in message
    if save != "pickle":
        assert "is refused: it would run or build" in message
        assert "system" in message
    # torch.load's own text advises to switch the protection off.
    assert "weights_only" not in message


def test_pickled_modules_and_arguments_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(
        WeightsError, match=r"refused.*torch\.nn\.modules\.linear\.Linear.*save its state dict"
    ):
        read_state_dict(path)
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, path)
    with pytest.raises(WeightsError, match=r"refused.*argparse\.Namespace"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TorchScript archive:UserWarning")
def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(WeightsError, match="is a TorchScript program, not a state dict"):
        read_state_dict(path)
