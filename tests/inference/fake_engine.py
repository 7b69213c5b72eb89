"""What the tests of streams share: an engine that is quick and can fail, and iterables that are watched."""

from __future__ import annotations

import gc
import threading
import time

import torch
from torch import Tensor


class FakeEngine:
    """Logits [N, 2] of batches [N, 1]: (x, 2 x). Refuses other shapes; fails where x is negative."""

    device = torch.device("cpu")

    def __init__(self, seconds: float = 0.0):
        self._seconds = seconds

    def check(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
        if images.ndim != 2:
            raise ValueError(f"images must have shape [N, 1], got {list(images.shape)}")

    def __call__(self, images: Tensor) -> Tensor:
        self.check(images)
        time.sleep(self._seconds)
        if (images < 0).any():
            raise RuntimeError("the engine failed")
        return torch.cat([images, 2 * images], dim=1)


def batch(value: float, count: int = 2) -> Tensor:
    return torch.full((count, 1), float(value))


def first(logits: Tensor) -> int:
    """The number that `batch` was made from."""
    assert torch.equal(logits, FakeEngine()(logits[:, :1]))
    return int(logits[0, 0])


class Pulls:
    """An iterator over `values` with `next` counted; an exception among them is raised in its place."""

    def __init__(self, values):
        self._values = iter(values)
        self.count = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        value = next(self._values)
        if isinstance(value, BaseException):
            raise value
        return value


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("effnet_fast-")]


def eventually(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def assert_threads_end() -> None:
    if threads():
        gc.collect()
    assert eventually(lambda: not threads()), threads()
