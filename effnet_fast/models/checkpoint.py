"""Reads a weights file into a flat state dict, and never executes what is in it."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

__all__ = ["WeightsError", "read_state_dict", "unwrap_state_dict"]

# Where training scripts put the state dict, in order of preference: averaged weights are the ones that are
# evaluated and published, so they come first (as in timm).
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "module"),
)
MAX_DEPTH = 4  # of wrappers in wrappers; a pickled dict can contain itself
# What wrappers of a module (DataParallel, AveragedModel, Lightning, torch.compile) put before every name.
PREFIXES = ("module.", "model.", "net.", "_orig_mod.", "ema.")


class WeightsError(ValueError):
    """A weights file or state dict that cannot be used; the message says which and why."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict in a PyTorch (.pth, .pt, .bin) or .safetensors file, on the CPU, unwrapped.

    Which of the two it is, is seen from the first bytes. PyTorch files are read with `weights_only=True`,
    and their checksums are verified, which `torch.load` does not do.

    Raises: FileNotFoundError; WeightsError, naming the file, if it is damaged, holds code or other Python
        objects, or has no state dict.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if not path.is_file():
        raise WeightsError(f"weights {path} is not a file")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise WeightsError(f"weights file {path} is empty")
    is_safetensors = path.suffix == ".safetensors" or head[8:9] == b"{"
    content = _read_safetensors(path) if is_safetensors else _read_torch(path, head)
    return unwrap_state_dict(content, f"weights file {path}")


def unwrap_state_dict(content: object, origin: str) -> dict[str, torch.Tensor]:
    """The state dict inside `content`, without wrappers such as {"state_dict": ...} and the prefix "module.".

    Where a checkpoint holds averaged weights ("state_dict_ema", "model_ema", ...) beside the last ones, the
    averaged are taken. `origin` names the content in messages.

    Raises: WeightsError if there is no state dict, or something in it is not a tensor.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(f"{origin} holds {_kind(content)}, not a state dict (names and tensors)")
    state = content
    for _ in range(MAX_DEPTH):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), state)
    if not state:
        raise WeightsError(f"{origin} holds an empty state dict")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{origin} is not a state dict of tensors: its entry {key!r} is {_kind(value)}; "
                f"a checkpoint's state dict is looked for under {', '.join(WRAPPERS)}"
            )
    state = {key: value for key, value in state.items() if key != "n_averaged"}  # AveragedModel's counter
    while prefix := next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsError(f"weights file {path} is damaged or not a safetensors file: {error}") from error


def _read_torch(path: Path, head: bytes) -> object:
    if head.startswith(b"PK"):
        _verify_checksums(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Any exception can come out of unpickling bytes that are not a pickle.
    except Exception as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise WeightsError(
                f"weights file {path} is refused: it would run or build {refused.group(1)} while loading, "
                "and only tensors are accepted; if you trust it, load it yourself and save its state dict"
            ) from error
        if "TorchScript" in str(error):
            raise WeightsError(
                f"weights file {path} is a TorchScript program, not a state dict; "
                "save model.state_dict() instead"
            ) from error
        raise WeightsError(
            f"weights file {path} is damaged or not a PyTorch checkpoint (it begins with {head!r}): "
            f"{_first_sentence(error)}"
        ) from error


def _verify_checksums(path: Path) -> None:
    """Raise WeightsError if a record of the archive does not match its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if record.CRC == 0:  # saved with torch.serialization.set_crc32_options(False)
                    continue
                with archive.open(record) as stream:
                    while stream.read(1 << 20):
                        pass
    # Damaged tables of contents raise much besides BadZipFile: UnicodeDecodeError, struct.error...
    except Exception as error:
        raise WeightsError(f"weights file {path} is damaged: {error}") from error


def _first_sentence(error: Exception) -> str:
    """The reason alone: torch.load's text goes on with advice to switch its protection off."""
    text = " ".join(str(error).split()) or type(error).__name__
    reason = re.search(r"WeightsUnpickler error: (.*?)(?: Check the documentation|$)", text)
    return (reason.group(1) if reason else text).split(". ")[0].strip()
