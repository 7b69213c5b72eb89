"""The torch-free kernels under AddressSanitizer and UndefinedBehaviorSanitizer, and emulated on NEON."""

from __future__ import annotations

import shutil

import pytest

from effnet_fast import native
from tests.cpp.build import KERNELS, TARGETS, build
from tests.cpp.run import checks, run


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_is_clean_under_sanitizers(kernel):
    target = TARGETS["native"]()
    finished = run(build(kernel, target), target)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    passed, failed = checks(finished)
    assert failed == 0
    for isa in native.cpu_isas():  # none was left out
        assert f"{kernel} {isa}: {passed // len(native.cpu_isas())} checks passed" in finished.stdout
    assert passed >= 40 * len(native.cpu_isas())


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64-static")),
    reason="needs the Debian packages g++-aarch64-linux-gnu and qemu-user-static",
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_on_neon(kernel):
    target = TARGETS["aarch64"]()
    finished = run(build(kernel, target), target)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    passed, failed = checks(finished)
    assert failed == 0
    assert f"{kernel} portable: {passed} checks passed" in finished.stdout
    assert passed >= 40
