"""What the library's launcher asks of the CUDA runtime, and what it says when a launch fails."""

from __future__ import annotations

import pytest

from tests.build.modules import compiled

OPT_IN = "attribute 8 = 232448"  # cudaFuncAttributeMaxDynamicSharedMemorySize: all that a block may have


@pytest.fixture(scope="module")
def launcher(tmp_path_factory, toolkit):
    return compiled("launcher", tmp_path_factory.mktemp("launcher"), [toolkit / "include"])


def test_launch(launcher) -> None:
    assert launcher.run() == ["launch 5 2 1, 128 threads, 1024 bytes, dependent 0, args 7"]


def test_an_empty_grid_is_skipped(launcher) -> None:
    assert launcher.run(grid=[0, 2, 1]) == []


def test_dependent_launch_from_sm_90(launcher) -> None:
    assert "dependent 1" in launcher.run(dependent=True, device=1, major=9)[0]
    assert "dependent 1" in launcher.run(dependent=True, device=2, major=10)[0]
    assert "dependent 0" in launcher.run(dependent=True, device=3, major=8)[0]


def test_much_shared_memory_is_asked_for_once_a_kernel_and_device(launcher) -> None:
    large = dict(shared_bytes=49153)
    assert OPT_IN not in launcher.run(shared_bytes=49152, device=4)
    assert launcher.run(**large, device=4)[0] == OPT_IN
    assert OPT_IN not in launcher.run(**large, device=4)
    assert launcher.run(**large, device=5)[0] == OPT_IN
    assert launcher.run(**large, device=4, second=True)[0] == OPT_IN


def test_a_failed_launch(launcher) -> None:
    with pytest.raises(RuntimeError) as raised:
        launcher.run(second=True, fail=True)
    assert str(raised.value) == (
        "effnet_fast::some_op: kernel second_kernel<3> with a grid of 5 x 2 x 1 blocks, 128 threads and "
        "1024 bytes of shared memory: too many resources (cudaErrorName)"
    )
    assert launcher.log()[-1] == "taken back"
    assert launcher.run() == ["launch 5 2 1, 128 threads, 1024 bytes, dependent 0, args 7"]


def test_a_device_that_cannot_be_asked(launcher) -> None:
    with pytest.raises(RuntimeError, match="effnet_fast: asking a GPU what it is: too many resources"):
        launcher.run(device=63)
    with pytest.raises(RuntimeError, match="number above 63"):
        launcher.run(device=64)
