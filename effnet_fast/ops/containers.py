"""A list of tensors in one opaque uint8 tensor: the packed form of everything that C++ does not pack itself.

Layout: an int64 header (magic, kind, number of entries, fingerprint of operator and activation, then per
entry dtype, rank, up to four sizes and a byte offset), and the entries' bytes, each aligned to 64. A missing
tensor is an entry of dtype -1. Entries are read without a copy.

The header is read once for a tensor object and remembered: on a GPU that reading waits for the device, which
a call must not do twice and a CUDA graph not at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_MAGIC = 0x54534146_54464E45  # "ENFTFAST", little-endian
_ALIGNMENT = 64
_HEAD_WORDS = 4
_ENTRY_WORDS = 7
_MAX_RANK = 4

#: Kinds of container: raw weights for the reference, packed sub-operators for a composition, and weights as
#: Triton's kernels read them.
WEIGHTS = 0
PARTS = 1
TRITON = 2

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
    if type(blob) is Tensor and not blob.is_meta:
        _known[blob] = _Contents(blob, header)  # to read it from a GPU would wait for the GPU
    return blob


class _Contents:
    """Kind, fingerprint and entries of one container; kind None for a tensor that is none.

    `header`: the words at its beginning, where they are known; None: they are read.
    """

    def __init__(self, blob: Tensor, header: Sequence[int] | None = None) -> None:
        self.kind: int | None = None
        self.fingerprint = 0
        self.tensors: list[Tensor | None] = []
        if blob.numel() < 8 * _HEAD_WORDS:
            return
        magic, kind, count, fingerprint = (header or _words(blob, _HEAD_WORDS))[:_HEAD_WORDS]
        if magic != _MAGIC:
            return
        self.kind, self.fingerprint = kind, fingerprint
        words = (header or _words(blob, _HEAD_WORDS + _ENTRY_WORDS * count))[_HEAD_WORDS:]
        entries = (words[i * _ENTRY_WORDS : (i + 1) * _ENTRY_WORDS] for i in range(count))
        self.tensors = [_entry(blob, *entry) for entry in entries]


_known = WeakTensorKeyDictionary()


def _contents(blob: Tensor) -> _Contents:
    contents = _known.get(blob)
    if contents is None:
        contents = _known[blob] = _Contents(blob)
    return contents


def kind_of(blob: Tensor) -> int | None:
    """`WEIGHTS`, `PARTS`, `TRITON`, or None when `blob` is not a container."""
    return _contents(blob).kind


def read(blob: Tensor, kind: int, label: str) -> list[Tensor | None]:
    """The tensors in `blob`, in its memory. ValueError when it holds something else than this `label`."""
    contents = _contents(blob)
    if contents.kind != kind:
        raise ValueError(f"effnet_fast: packed does not hold the weights of {label} for this backend")
    if contents.fingerprint != _fingerprint(label):
        raise ValueError(f"effnet_fast: packed was not made for {label}")
    return contents.tensors


def _words(blob: Tensor, count: int) -> list[int]:
    return _reinterpret(blob[: 8 * count], torch.int64).tolist()


def _entry(blob: Tensor, code: int, rank: int, *sizes_and_begin: int) -> Tensor | None:
    if code < 0:
        return None
    *sizes, begin = sizes_and_begin
    dtype, shape = _DTYPES[code], sizes[:rank]
    size = dtype.itemsize
    for length in shape:
        size *= length
    return _reinterpret(blob[begin : begin + size], dtype).reshape(shape)


def _reinterpret(data: Tensor, dtype: torch.dtype) -> Tensor:
    # A blob that sits at an odd offset of a larger storage cannot be viewed in place.
    if data.storage_offset() % dtype.itemsize:
        return data.clone().view(dtype)
    # Not a view: that would keep the container alive through its base, and with it what is remembered of it.
    offset, length = data.storage_offset() // dtype.itemsize, data.numel() // dtype.itemsize
    return torch.empty(0, dtype=dtype, device=data.device).set_(data.untyped_storage(), offset, (length,))
