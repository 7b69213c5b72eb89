"""Memory that does not fit: said before anything is allocated, with the batch that would fit."""

from __future__ import annotations

import re
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effnet_fast import InferenceEngine
from effnet_fast.inference import capacity
from effnet_fast.inference.capacity import EngineMemoryError, explained, free_bytes, largest_batch, require

CPU = torch.device("cpu")


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(1, 100), st.integers(0, 500))
def test_largest_batch_is_the_largest(batch, free, image, base):
    fitting = largest_batch(lambda images: base + image * images, free, batch)
    assert fitting == max(0, min(batch - 1, (free - base) // image))


def test_engine_that_does_not_fit_says_what_would(tiny, monkeypatch):
    fits = InferenceEngine(tiny, batch_size=8, image_size=32)
    limit = fits.memory.total_bytes
    monkeypatch.setattr(capacity, "free_bytes", lambda device: limit)
    with pytest.raises(
        EngineMemoryError, match=r"batch_size=4096 of 32 x 32 images in float32 needs"
    ) as error:
        InferenceEngine(tiny, batch_size=4096, image_size=32)
    would_fit = int(re.search(r"batch_size=(\d+) would fit", str(error.value))[1])
    assert InferenceEngine(tiny, batch_size=would_fit, image_size=32).memory.total_bytes <= 1.1 * limit
    with pytest.raises(torch.OutOfMemoryError):
        InferenceEngine(tiny, batch_size=2 * would_fit + 8, image_size=32)


def test_engine_of_which_nothing_fits(tiny, monkeypatch):
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 1000)
    with pytest.raises(EngineMemoryError, match="1000 B are free on cpu: one image needs .* 16 bits"):
        InferenceEngine(tiny, batch_size=2, image_size=32)


def test_absurd_batch_is_refused_and_not_granted(tiny):
    """The system would promise this memory, and kill the process that uses it."""
    with pytest.raises(EngineMemoryError, match=r"batch_size=\d+ would fit"):
        InferenceEngine(tiny, batch_size=10**9, image_size=32)


def test_devices_that_say_nothing_are_not_asked():
    assert free_bytes(torch.device("meta")) is None
    require(lambda images: 10**30, 1, torch.device("meta"), "anything")


def test_free_memory_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert free_bytes(CPU, tmp_path) == 1000
    files = {
        "memory.max": "900\n",
        "memory.current": "700\n",
        "memory.stat": "anon 1\ninactive_file 30\nactive_file 20\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert free_bytes(CPU, tmp_path) == 900 - 700 + 50
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU, tmp_path) == 1000
    (tmp_path / "memory.max").write_text("100\n")
    assert free_bytes(CPU, tmp_path) == 0


def test_an_allocators_error_is_explained():
    with (
        pytest.raises(EngineMemoryError, match=r"engine for batch_size=7 holds 2.0 KiB, .*\(CUDA out of"),
        explained(7, lambda: 2048, CPU),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
    with pytest.raises(ValueError, match="other"), explained(7, lambda: 2048, CPU):
        raise ValueError("other")
