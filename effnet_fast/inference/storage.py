"""A folded network in one safetensors file: saved atomically, checked when it is loaded, free of code.

The tensors are the file's tensors, by their path in the network ("blocks.3.expand.weight"). Everything else
is text in its `__metadata__`:

    format          "effnet_fast engine"
    format_version  "1"
    effnet_fast     the version that wrote it
    structure       the network as JSON; see `effnet_fast.inference.structure`
    settings        the caller's own JSON
    sha256          over the other entries and over name, dtype, shape and bytes of every tensor

The checksum is against accidents: whoever changes a file on purpose can compute it again. What is built from
the structure are the dataclasses of `effnet_fast.inference.folding` and nothing else; no pickle is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet_fast import __version__
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.structure import decode_network, describe, encode_network, listed

__all__ = ["EngineFileError", "load_network", "save_network"]

FORMAT = "effnet_fast engine"
FORMAT_VERSION = "1"

_KEYS = ("effnet_fast", "format", "format_version", "settings", "sha256", "structure")


class EngineFileError(ValueError):
    """A file that is no usable engine: `path`, and `problem` in words."""

    def __init__(self, path: Path, problem: str):
        super().__init__(path, problem)  # both, so that it can be pickled
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"engine file {self.path} {self.problem}"


def save_network(path: str | os.PathLike[str], network: FoldedNetwork, settings: Mapping[str, Any]) -> None:
    """Write `network` and `settings` to the file `path`, replacing one that is there.

    The file is complete or it is not there: it is written beside `path` and moved. After a failure the old
    file is as it was.

    Args:
        path: in a folder that exists.
        network: its tensors may be on any device but "meta".
        settings: texts, finite numbers, booleans, None, lists and dictionaries of them with texts as keys
            (a tuple comes back as a list).

    Raises: FileNotFoundError without the folder; IsADirectoryError where `path` is one; OSError when it
        cannot be written; TypeError or ValueError for a part or a setting that cannot be stored.
    """
    # Imported when needed, as everywhere: an engine that is never saved does without.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path).resolve()  # a link stays one, and what it leads to is replaced
    if path.is_dir():
        raise IsADirectoryError(f"an engine is saved to a file, and {path} is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder {path.parent} does not exist: make it before saving {path.name}")
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a dictionary, got {type(settings).__name__}")
    structure, tensors = encode_network(network)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "effnet_fast": __version__,
        "structure": json.dumps(structure, allow_nan=False),
        "settings": _settings_text(settings),
    }
    metadata["sha256"] = _digest(metadata, tensors)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".effnet_fast-") as folder:
        file = Path(folder) / path.name
        file.touch()
        mode = file.stat().st_mode  # as the umask has it; some versions of safetensors make 0600 of it
        try:
            save_file(tensors, file, metadata)
        except SafetensorError as error:
            raise OSError(f"engine file {path} could not be written: {error}") from error
        file.chmod(mode)
        os.replace(file, path)


def load_network(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[FoldedNetwork, dict[str, Any]]:
    """The network, its tensors on `device`, and the settings that `save_network` wrote to `path`.

    Raises: FileNotFoundError; EngineFileError, a ValueError that names the file and says whether it is
        something else, of another version, damaged, or not understood.
    """
    device, path = torch.device(device), Path(path)
    if not path.exists():
        raise FileNotFoundError(f"engine file {path} does not exist")
    if not path.is_file():
        raise EngineFileError(path, "is not a file")
    with _opened(path) as file:
        metadata = file.metadata() or {}
        _check_format(path, metadata)
        # Copies: the file's own are mapped memory, which would change with the file.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if metadata.pop("sha256") != _digest(metadata, tensors):
        raise EngineFileError(path, "is damaged: its content does not match its checksum; copy it again")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    try:
        settings = json.loads(metadata["settings"])
        if not isinstance(settings, dict):
            raise ValueError(f"its settings are a {type(settings).__name__}")
        network = decode_network(json.loads(metadata["structure"]), tensors)
    # A checksum that is right: another program wrote this, or a version with parts that this one lacks.
    except (ValueError, TypeError, RecursionError) as error:
        raise EngineFileError(
            path,
            f"is not understood by effnet_fast {__version__} ({metadata['effnet_fast']} wrote it): {error}",
        ) from error
    return network, settings


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (EngineFileError, OSError, MemoryError):
        raise
    # Besides SafetensorError: PyTorch refuses sizes and dtypes of a damaged header in words of its own.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EngineFileError(path, f"is damaged or not a safetensors file: {reason}") from error


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise EngineFileError unless `metadata` has all entries, of the format and version read here."""
    if metadata.get("format") != FORMAT:
        raise EngineFileError(
            path,
            "is a safetensors file, but holds no engine; a model's weights are read by "
            "effnet_fast.create_model(name, weights=path)",
        )
    version, writer = metadata.get("format_version"), metadata.get("effnet_fast", "an unknown version")
    if version != FORMAT_VERSION:
        raise EngineFileError(
            path,
            f"has format version {version}, and effnet_fast {__version__} reads version {FORMAT_VERSION}: "
            f"load it with the effnet_fast that wrote it ({writer}), or save the engine again with this one",
        )
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise EngineFileError(path, f"is damaged: it lacks {listed(missing)}; copy it again")


def _settings_text(settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(settings), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"settings must be values that JSON can hold: {error}") from error


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the texts and of the tensors, both in the order of their names, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, *describe(tensor).values()]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
