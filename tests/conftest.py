"""Seeds, poisoned outputs, markers, and `target`: every implementation of the operators on this machine."""

from __future__ import annotations

import os

# Threads that wait without spinning: on a machine shared with others, spinning costs more than the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

from effnet_fast.testing import targets

TARGETS = targets()


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "gpu: needs a GPU",
        "slow: takes more than a few seconds; not part of `make test`",
        "large: allocates tensors of more than 2^31 elements",
    ):
        config.addinivalue_line("markers", marker)


def pytest_report_header() -> str:
    return "effnet_fast targets: " + ", ".join(map(str, TARGETS))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        metafunc.parametrize("target", TARGETS, ids=str)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned_outputs():
    """`torch.empty` gives NaN, in C++ too: an output that nobody wrote cannot look right."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def threads():
    """A function that sets the number of threads; the test's end restores it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
