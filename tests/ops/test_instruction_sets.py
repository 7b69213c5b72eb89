"""Which instruction set the CPU operators run, as the environment asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from effnet_fast import native
from effnet_fast.measure import environment

_SCRIPT = """
import torch
from effnet_fast import native, ops

print(native.cpu_isa())
print(native.reason("cpu"))
x, weight = torch.ones(1, 8, 2, 2), torch.ones(4, 8, 1, 1)
print(ops.pointwise_conv(x, weight).mean().item())
try:
    print(ops.pointwise_conv(x, weight, backend="cpu").mean().item())
except RuntimeError as error:
    print(error)
"""


def _lines(isa: str) -> list[str]:
    environment = {**os.environ, native.CPU_ISA_VARIABLE: isa, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def test_auto_is_the_machines_best() -> None:
    assert _lines("auto") == [native.cpu_isas()[0], "", "8.0", "8.0"]


def test_the_widest_set_is_the_best_but_for_dot_products_on_intel() -> None:
    """Whose cores do half as many of them as of float32's: tests/measure/test_peaks.py measures it."""
    order = ["avx512_amx", "avx512_bf16", "avx512", "avx2", "portable"]
    if "GenuineIntel" in cpuinfo():
        order[1:3] = ["avx512", "avx512_bf16"]
    assert list(native.cpu_isas()) == [isa for isa in order if isa in native.cpu_isas()]


def test_a_machine_has_the_sets_that_its_cpu_reports() -> None:
    """By what Linux says of the CPU; a library that forgot one would only be slower."""
    reported = environment.cpu_isa()
    assert reported in native.cpu_isas()
    if "avx512_amx" in native.cpu_isas():
        assert reported == "avx512_amx"


def test_a_set_that_does_not_exist_turns_the_backend_off_and_says_what_there_is() -> None:
    """Not the process: the reference goes on, and the CPU backend asked for by name says why it cannot."""
    active, reason, result, error = _lines("avx10")
    allowed = ",".join(native.cpu_isas())
    assert active == "None"
    assert f"EFFNET_FAST_CPU_ISA = 'avx10', this machine runs {allowed}" in reason
    assert result == "8.0"
    assert "backend cpu cannot serve this call" in error
    assert reason in error
