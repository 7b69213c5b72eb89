"""Files that are no engine, or a damaged one; each is refused in a sentence, whatever is wrong with it."""

from __future__ import annotations

import json
import pickle
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from effnet_fast import __version__
from effnet_fast.inference import storage
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.storage import EngineFileError, load_network, save_network
from tests.networks import assert_same_network, every_kind_of_block

SETTINGS = {"batch_size": 4, "image_size": [33, 30]}


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


def test_files_of_another_kind(tmp_path, tiny):
    with pytest.raises(FileNotFoundError, match="engine file .*/none does not exist"):
        load_network(tmp_path / "none")
    with pytest.raises(EngineFileError, match="is not a file") as caught:
        load_network(tmp_path)
    assert caught.value.path == tmp_path
    weights = tmp_path / "weights.safetensors"
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file(tiny.state_dict(), weights, metadata)
        with pytest.raises(EngineFileError, match=r"holds no engine; .*create_model\(name, weights=path\)"):
            load_network(weights)
    torch.save(tiny.state_dict(), weights)
    with pytest.raises(EngineFileError, match="is damaged or not a safetensors file"):
        load_network(weights)


def test_errors_survive_pickling(tmp_path):
    error = EngineFileError(tmp_path, "is damaged")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path) == (f"engine file {tmp_path} is damaged", tmp_path)


def content(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def rewrite(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Write these contents with their checksum."""
    metadata = {key: value for key, value in metadata.items() if key != "sha256"}
    metadata["sha256"] = storage._digest(metadata, tensors)
    safetensors.torch.save_file(tensors, path, metadata)


def test_another_format_version(saved):
    metadata, tensors = content(saved)
    rewrite(saved, metadata | {"format_version": "2", "effnet_fast": "7.8.9"}, tensors)
    with pytest.raises(
        EngineFileError, match=r"has format version 2, .* reads version 1: .*\(7\.8\.9\), or save"
    ):
        load_network(saved)


def test_another_version_of_the_package_reads_the_format(saved, network):
    metadata, tensors = content(saved)
    assert metadata["effnet_fast"] == __version__
    rewrite(saved, metadata | {"effnet_fast": "0.0.1"}, tensors)
    assert_same_network(load_network(saved)[0], network)


@pytest.mark.parametrize("key", ["structure", "settings", "sha256", "effnet_fast"])
def test_an_absent_entry(saved, key):
    metadata, tensors = content(saved)
    del metadata[key]
    safetensors.torch.save_file(tensors, saved, metadata)
    with pytest.raises(EngineFileError, match=f"is damaged: it lacks {key}"):
        load_network(saved)


def exchange(metadata, tensors):
    tensors["stem.bias"], tensors["blocks.3.conv.bias"] = tensors["blocks.3.conv.bias"], tensors["stem.bias"]


def change_a_weight(metadata, tensors):
    tensors["head.weight"].view(torch.uint8)[0, 0] ^= 1


def change_a_shape(metadata, tensors):
    tensors["classifier.weight"] = tensors["classifier.weight"].reshape(6, 5)


def change_a_setting(metadata, tensors):
    metadata["settings"] = metadata["settings"].replace("33", "34")


def change_the_structure(metadata, tensors):
    metadata["structure"] = metadata["structure"].replace("silu", "relu", 1)


def add_an_entry(metadata, tensors):
    metadata["note"] = "x"


@pytest.mark.parametrize(
    "change",
    [exchange, change_a_weight, change_a_shape, change_a_setting, change_the_structure, add_an_entry],
)
def test_whatever_changes_the_checksum_sees_it(saved, change):
    metadata, tensors = content(saved)
    change(metadata, tensors)
    safetensors.torch.save_file(tensors, saved, metadata)
    with pytest.raises(EngineFileError, match="its content does not match its checksum"):
        load_network(saved)


# What is wrong: edit(structure, tensors), and what the message says.
MALFORMED = {
    "absent tensor": (
        lambda structure, tensors: tensors.pop("head.bias"),
        "names the tensor 'head.bias', which is not there",
    ),
    "tensor too many": (
        lambda structure, tensors: tensors.update(extra=torch.zeros(1)),
        "does not name the tensors extra",
    ),
    "other shape": (
        lambda structure, tensors: tensors.update({"head.bias": torch.zeros(7)}),
        r"has head.bias as float32 \[6\], and the tensor is float32 \[7\]",
    ),
    "other dtype": (
        lambda structure, tensors: tensors.update({"head.bias": torch.zeros(6).double()}),
        r"has head.bias as float32 \[6\], and the tensor is float64 \[6\]",
    ),
    "tensor named twice": (
        lambda structure, tensors: structure["head"]["bias"].update(tensor="stem.bias"),
        "names the tensor 'stem.bias', which is not there or named twice",
    ),
    "name that is a list": (
        lambda structure, tensors: structure["head"]["bias"].update(tensor=["head.bias"]),
        "unhashable",
    ),
    "tensor with more": (
        lambda structure, tensors: structure["head"]["bias"].update(more=1),
        "a part with tensor, dtype, shape and 1 more, neither a class nor a tensor",
    ),
    "unknown class": (
        lambda structure, tensors: structure["head"].update({"class": "Popen"}),
        "class 'Popen', which is unknown",
    ),
    "class beside the known ones": (
        lambda structure, tensors: structure["head"].update({"class": "ConvNormAct"}),
        "class 'ConvNormAct', which is unknown",
    ),
    "class that is a list": (
        lambda structure, tensors: structure["head"].update({"class": ["FoldedConv"]}),
        "unhashable",
    ),
    "unknown field": (
        lambda structure, tensors: structure["head"].update(unknown=1),
        "unexpected keyword argument 'unknown'",
    ),
    "absent field": (
        lambda structure, tensors: structure["head"].pop("stride"),
        "missing 1 required positional argument: 'stride'",
    ),
    "text for a number": (
        lambda structure, tensors: structure["head"].update(stride="2"),
        "stride of a FoldedConv must be int, got a str",
    ),
    "boolean for a number": (
        lambda structure, tensors: structure["head"].update(stride=True),
        "stride of a FoldedConv must be int, got a bool",
    ),
    "parts exchanged": (
        lambda structure, tensors: structure.update(
            head=structure["classifier"], classifier=structure["head"]
        ),
        "head of a FoldedNetwork must be FoldedConv, got a FoldedLinear",
    ),
    "one block for a tuple": (
        lambda structure, tensors: structure.update(blocks=structure["blocks"][0]),
        "blocks of a FoldedNetwork must be tuple",
    ),
    "block of nothing": (
        lambda structure, tensors: structure["blocks"].append(None),
        "blocks of a FoldedNetwork must be tuple",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_structures_that_describe_no_network(saved, case):
    edit, message = MALFORMED[case]
    metadata, tensors = content(saved)
    structure = json.loads(metadata["structure"])
    edit(structure, tensors)
    rewrite(saved, metadata | {"structure": json.dumps(structure)}, tensors)
    with pytest.raises(EngineFileError, match=f"is not understood by effnet_fast .* wrote it.: .*{message}"):
        load_network(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "its structure is a tuple, not a FoldedNetwork"),
        ("3", "its structure is a int, not a FoldedNetwork"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
    ],
    ids=["list", "number", "half", "nested"],
)
def test_structures_that_are_no_object(saved, text, message):
    metadata, _ = content(saved)
    rewrite(saved, metadata | {"structure": text}, {})
    with pytest.raises(EngineFileError, match=f"is not understood by effnet_fast .*{message}"):
        load_network(saved)


@pytest.mark.parametrize(("text", "message"), [("[1]", "settings are a list"), ("{'a'", "Expecting")])
def test_settings_that_are_no_dictionary(saved, text, message):
    metadata, tensors = content(saved)
    rewrite(saved, metadata | {"settings": text}, tensors)
    with pytest.raises(EngineFileError, match=f"is not understood by effnet_fast .*{message}"):
        load_network(saved)


def refused_or_same(path: Path, network: FoldedNetwork) -> bool:
    """Whether the file is refused; AssertionError if it is loaded as something else."""
    try:
        got, settings = load_network(path)
    except EngineFileError:
        return True
    assert_same_network(got, network)
    assert settings == SETTINGS
    return False


def test_no_changed_byte_goes_unseen(saved, network):
    original = saved.read_bytes()
    header = 8 + struct.unpack("<Q", original[:8])[0]
    draw = random.Random(0)
    # Most of the file is weights, most of what can go wrong is not.
    positions = [*range(12), *(draw.randrange(8, header) for _ in range(250))]
    positions += [draw.randrange(header, len(original)) for _ in range(100)]
    for position in positions:
        damaged = bytearray(original)
        damaged[position] ^= 1 << draw.randrange(8)
        saved.write_bytes(damaged)
        padding = position < header and original[position : position + 1] == b" "
        assert refused_or_same(saved, network) or padding, position
    saved.write_bytes(original)
    assert not refused_or_same(saved, network)


def test_a_file_cut_short_or_too_long_is_refused(saved, network):
    original = saved.read_bytes()
    draw = random.Random(0)
    for length in (*range(10), len(original) - 1, *(draw.randrange(len(original)) for _ in range(45))):
        saved.write_bytes(original[:length])
        with pytest.raises(EngineFileError, match="is damaged or not a safetensors file"):
            load_network(saved)
    saved.write_bytes(original + b"\0")
    with pytest.raises(EngineFileError, match="is damaged or not a safetensors file"):
        load_network(saved)


def header(text: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


def one_tensor(shape: list[int]) -> str:
    entries = dict.fromkeys(storage._KEYS, "1") | {"format": storage.FORMAT}
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    return json.dumps({"__metadata__": entries, "a": tensor})


@pytest.mark.parametrize(
    "data",
    [
        *(header("{}", length) for length in (1 << 60, (1 << 64) - 1, 99 << 20, 3)),
        header("[" * 1000),
        header(one_tensor([1 << 62, 1 << 62])),
        header(one_tensor([0, (1 << 64) - 1])),  # no element, in a dimension that PyTorch cannot count
    ],
    ids=["2^60 bytes", "2^64 bytes", "99 MB", "3 bytes", "nested", "huge tensor", "empty huge tensor"],
)
def test_headers_that_promise_what_is_not_there(path, data):
    path.write_bytes(data)
    with pytest.raises(EngineFileError, match="is damaged or not a safetensors file"):
        load_network(path)
