"""Seeds, poisoned outputs, markers, and `target`: every implementation of the operators on this machine.

Tests that take `target` (`unpacked_target`, `packed_target`) run once for each: on the CPU, and on a GPU if
there is one. Without one, Triton's kernels are interpreted on the CPU.
"""

from __future__ import annotations

import os

# Threads that wait without spinning: on a machine shared with others, spinning costs more than the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# cuBLAS is deterministic with a workspace of a fixed size only.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

if not torch.cuda.is_available():
    # Triton's kernels run in its interpreter, which must be known before the first of them is declared. A
    # process either interprets or compiles, so what compiles kernels is tested in processes of its own.
    os.environ["TRITON_INTERPRET"] = "1"

from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Target, targets
from effnet_fast.triton_kernels import OPERATORS as KERNELS

TARGETS = targets()
FIXTURES = {
    "target": TARGETS,
    "compiled_target": [target for target in TARGETS if not target.interpreted],
    "unpacked_target": [target for target in TARGETS if not target.packed],
    "packed_target": [target for target in TARGETS if target.packed],
}

# The contract's reference multiplies float32 as float32.
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "gpu: needs a GPU",
        "slow: takes more than a few seconds; not part of `make test`",
        "large: allocates tensors of more than 2^31 elements",
        "interpreted: Python stands in for a GPU; on one core each, several at a time (`make test`)",
    ):
        config.addinivalue_line("markers", marker)
    # One for every scalar that a kernel reads; NumPy 2 only announces the end of what the interpreter does.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:Conversion of an array with:DeprecationWarning:triton.runtime.interpreter",
    )


def pytest_report_header() -> str:
    return "effnet_fast targets: " + ", ".join(map(str, TARGETS))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, values in FIXTURES.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=str)


def _runs_again(item: pytest.Item, target: Target) -> bool:
    """Whether an interpreted case would run kernels that other cases of the same test run already.

    A composed operator takes seconds there. It is run by the tests of numerics, of exactness and of public
    functions; layouts, NaN and strides reach it through the kernels of its parts.
    """
    op = item.callspec.params.get("op")
    return op in OPERATORS and op not in KERNELS and item.path.name == "test_edges.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, dropped = [], []
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        target = next((p for p in params if isinstance(p, Target) and p.interpreted), None)
        if target is not None:
            item.add_marker("interpreted")
        (dropped if target is not None and _runs_again(item, target) else kept).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


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
