"""Every deliberately wrong CUDA kernel is rejected, by the emulator or by its result; the right one not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.emulation.build import bound_operators
from tests.mutants.cuda import FOLDER, MUTANTS
from tests.mutants.mutant import ROOT, assert_all_caught, judge, lost


def operator_of(mutant) -> str:
    """Whose module has the fault, and whose results are looked at; two operators share the matrix product."""
    return next((op for op in bound_operators() if mutant.file.startswith(op)), "pointwise_conv")


def test_every_fault_still_has_its_place():
    assert not lost(MUTANTS, FOLDER)


def test_every_mutant_is_caught(tmp_path, capsys):
    # Once, so that what is edited meanwhile is in all copies or in none.
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    (tmp_path / "build").mkdir()

    def environment(place):
        # -O0 compiles in half the time, and maps this small are done at once.
        return {"EFFNET_FAST_EMULATION_ROOT": str(place), "CXXFLAGS": "-O0 -g0", "OMP_NUM_THREADS": "1"}

    def package(mutant):
        place = tmp_path / (mutant.name if mutant else "unchanged").replace(" ", "_")
        shutil.copytree(tmp_path / "csrc", place / "csrc")
        if mutant:
            mutant.apply(place / FOLDER)
        # Objects are known by what they are made of, and those without the fault are made once.
        (place / "build").symlink_to(tmp_path / "build")
        # Before the verdict: a fault that the compiler refuses fails this test instead of counting as caught.
        subprocess.run(
            [sys.executable, "-m", "tests.emulation.build", *([operator_of(mutant)] if mutant else [])],
            cwd=ROOT, env=os.environ | environment(place), check=True,
        )  # fmt: skip
        return place

    def verdict(place, mutant):
        return judge(place, "emulation", environment(place), only=operator_of(mutant) if mutant else "")

    assert_all_caught("CUDA", MUTANTS, package, verdict, capsys)
