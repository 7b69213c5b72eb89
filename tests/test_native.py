"""Which instruction set the CPU kernels use, and that a user is told where it is a slow one."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys

import pytest

from effnet_fast import native
from tests.command import invoke

SLOW = "portable vectors, several times slower than with AVX2 or AVX-512: this CPU has no AVX2"
on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="elsewhere portable vectors are not slow"
)


def _info(isa: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != native.CPU_ISA_VARIABLE}
    if isa is not None:
        environment[native.CPU_ISA_VARIABLE] = isa
    command = [sys.executable, "-c", "from effnet_fast.cli import main; main()", "info", "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


@on_x86
def test_info_says_that_a_forced_portable_set_is_slow_and_forced():
    done = _info("portable")
    cpu = json.loads(done.stdout)["cpu"]
    assert cpu["isa"] == "portable"
    assert cpu["isa forced"] == "by EFFNET_FAST_CPU_ISA"
    assert "several times slower" in cpu["slow"]
    assert "EFFNET_FAST_CPU_ISA asks for it" in cpu["slow"]
    assert "slower" not in done.stderr  # who forces it knows


def test_info_of_the_machines_best_set_says_nothing_of_force():
    cpu = json.loads(_info(None).stdout)["cpu"]
    assert cpu["isa"] == cpu["isas"].split(", ")[0]
    assert "isa forced" not in cpu
    if cpu["isa"] != "portable":
        assert "slow" not in cpu


@on_x86
def test_a_cpu_without_avx2_is_told_so_by_info(monkeypatch):
    monkeypatch.delenv(native.CPU_ISA_VARIABLE, raising=False)
    monkeypatch.setattr(native, "cpu_isa", lambda: "portable")
    assert SLOW in json.loads(invoke("info", "--json").stdout)["cpu"]["slow"]
    assert SLOW in " ".join(invoke("info").stdout.split())


@on_x86
@pytest.mark.parametrize(
    ("isa", "forced", "warnings"),
    [("portable", None, 1), ("portable", "auto", 1), ("portable", "portable", 0), ("avx2", None, 0)],
)
def test_loading_warns_once_of_a_cpu_without_avx2(monkeypatch, caplog, isa, forced, warnings):
    monkeypatch.delenv(native.CPU_ISA_VARIABLE, raising=False)
    if forced is not None:
        monkeypatch.setenv(native.CPU_ISA_VARIABLE, forced)
    monkeypatch.setattr(native.torch.ops.effnet_fast, "cpu_isa", lambda: isa)
    native.load.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "effnet_fast"):
            native.load()
            native.load()
    finally:
        native.load.cache_clear()
    told = [record for record in caplog.records if "slower" in record.message]
    assert len(told) == warnings
    assert all(record.levelno == logging.WARNING and SLOW in record.message for record in told)


def test_portable_vectors_are_not_called_slow_on_arm(monkeypatch):
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    assert native.slowness("portable") == ""
