"""One thread: the tensors are too small to share out, and waiting for a busy core takes far longer."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_thread(threads) -> None:
    threads(1)
