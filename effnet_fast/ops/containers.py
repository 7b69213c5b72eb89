"""A list of tensors in one opaque uint8 tensor: the packed form of everything that C++ does not pack itself.

Layout: an int64 header (magic, kind, number of entries, fingerprint of operator and activation, then per
entry dtype, rank, up to four sizes and a byte offset), and the entries' bytes, each aligned to 64. A missing
tensor is an entry of dtype -1. Entries are read without a copy.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_MAGIC = 0x54534146_54464E45  # "ENFTFAST", little-endian
_ALIGNMENT = 64
_HEAD_WORDS = 4
_ENTRY_WORDS = 7
_MAX_RANK = 4

#: Kinds of container: raw weights for the reference, packed sub-operators for a composition.
WEIGHTS = 0
PARTS = 1

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8)


def _fingerprint(label: str) -> int:
    return zlib.crc32(label.encode())


def _header_bytes(entries: int) -> int:
    used = 8 * (_HEAD_WORDS + _ENTRY_WORDS * entries)
    return -(-used // _ALIGNMENT) * _ALIGNMENT


def write(kind: int, label: str, tensors: Sequence[Tensor | None]) -> Tensor:
    """Copy `tensors` into one uint8 tensor on their device; `label` must be given again to :func:`read`."""
    header = [_MAGIC, kind, len(tensors), _fingerprint(label)]
    end = _header_bytes(len(tensors))
    places = []
    for tensor in tensors:
        if tensor is None:
            header += [-1] + [0] * (_ENTRY_WORDS - 1)
            continue
        sizes = list(tensor.shape) + [0] * (_MAX_RANK - tensor.dim())
        header += [_DTYPES.index(tensor.dtype), tensor.dim(), *sizes, end]
        size = tensor.numel() * tensor.element_size()
        places.append((end, size, tensor))
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    device = next(tensor.device for tensor in tensors if tensor is not None)
    blob = torch.zeros(end, dtype=torch.uint8, device=device)
    words = torch.tensor(header, dtype=torch.int64, device=device)
    blob[: 8 * len(header)] = words.view(torch.uint8)
    for begin, size, tensor in places:
        flat = tensor.detach().contiguous().reshape(-1)
        blob[begin : begin + size] = flat.view(torch.uint8)
    return blob


def kind_of(blob: Tensor) -> int | None:
    """`WEIGHTS`, `PARTS`, or None when `blob` is not a container."""
    if blob.numel() < 8 * _HEAD_WORDS:
        return None
    magic, kind = _words(blob, 2)
    return kind if magic == _MAGIC else None


def read(blob: Tensor, kind: int, label: str) -> list[Tensor | None]:
    """The tensors in `blob`, as views. ValueError when it holds something else than `label` of this kind."""
    if kind_of(blob) != kind:
        raise ValueError(f"effnet_fast: packed does not hold the weights of {label} for this backend")
    _, _, count, fingerprint = _words(blob, _HEAD_WORDS)
    if fingerprint != _fingerprint(label):
        raise ValueError(f"effnet_fast: packed was not made for {label}")
    words = _words(blob, _HEAD_WORDS + _ENTRY_WORDS * count)
    tensors: list[Tensor | None] = []
    for i in range(count):
        code, rank, *sizes, begin = words[_HEAD_WORDS + i * _ENTRY_WORDS :][:_ENTRY_WORDS]
        if code < 0:
            tensors.append(None)
            continue
        dtype, shape = _DTYPES[code], sizes[:rank]
        size = dtype.itemsize
        for length in shape:
            size *= length
        tensors.append(_reinterpret(blob[begin : begin + size], dtype).reshape(shape))
    return tensors


def _words(blob: Tensor, count: int) -> list[int]:
    return _reinterpret(blob[: 8 * count], torch.int64).tolist()


def _reinterpret(data: Tensor, dtype: torch.dtype) -> Tensor:
    # A blob that sits at an odd offset of a larger storage cannot be viewed in place.
    if data.storage_offset() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype)
