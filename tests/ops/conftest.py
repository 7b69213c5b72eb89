"""Every test of an operator runs with poisoned outputs, and on two threads, so that work is partitioned."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _operator_test(poisoned_outputs, threads):
    threads(2)
