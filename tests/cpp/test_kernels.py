"""The torch-free kernels under AddressSanitizer and UndefinedBehaviorSanitizer, and emulated on NEON."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from effnet_fast import native
from tests.cpp.build import KERNELS, TARGETS, build, lacking
from tests.cpp.run import checks, run


def passed_on(name: str, kernel: str, isas: Sequence[str]) -> None:
    """The kernel's test passes on a target, with as many checks for each of `isas`, none of them left out."""
    target = TARGETS[name]()
    finished = run(build(kernel, target), target)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    passed, failed = checks(finished)
    assert failed == 0
    for isa in isas:
        assert f"{kernel} {isa}: {passed // len(isas)} checks passed" in finished.stdout
    assert passed >= 40 * len(isas) > 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_is_clean_under_sanitizers(kernel):
    passed_on("native", kernel, native.cpu_isas())


@pytest.mark.slow
@pytest.mark.skipif(bool(lacking("aarch64")), reason=lacking("aarch64"))
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_on_neon(kernel):
    passed_on("aarch64", kernel, ("portable",))


@pytest.mark.parametrize(
    ("programs", "ziglang", "lacks"),
    [
        ({"aarch64-linux-gnu-g++", "qemu-aarch64-static"}, False, ""),
        ({"aarch64-linux-gnu-g++", "qemu-aarch64"}, False, ""),
        ({"qemu-aarch64-static"}, True, ""),
        ({"qemu-aarch64-static"}, False, "no compiler"),
        ({"aarch64-linux-gnu-g++"}, True, "no emulator"),
        (set(), True, "no emulator"),
    ],
)
def test_neon_is_left_out_only_where_something_is_missing(monkeypatch, programs, ziglang, lacks):
    """Where `lacking` says nothing, the tests above are run."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace() if ziglang else None)
    assert lacking("aarch64").startswith(lacks)
    assert bool(lacking("aarch64")) == bool(lacks)
