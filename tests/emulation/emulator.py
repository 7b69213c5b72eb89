"""Calls an emulated operator with torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tests.emulation.build import module


class EmulationError(RuntimeError):
    """A failed check: kernel, block, thread, file and line, and what was wrong."""


def _memory(tensors: Mapping[str, Tensor | None]) -> dict[str, tuple[int, int]]:
    memory = {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)):
            raise ValueError(f"{name} is not dense")
        memory[name] = (tensor.data_ptr(), tensor.nbytes)
    return memory


def emulate(
    op: str,
    inputs: Mapping[str, Tensor | None],
    outputs: Mapping[str, Tensor],
    seed: int = 0,
    source: Path | None = None,
    **parameters: int | str | torch.dtype,
) -> int:
    """Run `op` as bound in csrc/emulation/bind_<op>.cpp (or in `source`), filling `outputs`.

    `inputs` are read-only and None is an absent one; every byte of `outputs` must be written. `parameters`
    are the integers and texts that the binding asks for; a dtype is passed by its name. `seed` chooses the
    order of blocks and threads. Returns the number of blocks run; raises EmulationError on a failed check.
    """
    loaded = module(source or op)
    texts = {
        name: str(value).removeprefix("torch.")
        for name, value in parameters.items()
        if not isinstance(value, int)
    }
    integers = {name: int(value) for name, value in parameters.items() if isinstance(value, int)}
    try:
        return loaded.emulate(op, _memory(inputs), _memory(outputs), integers, texts, seed)
    except loaded.EmulationError as error:
        raise EmulationError(str(error)) from None
