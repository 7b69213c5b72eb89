"""Every deliberately wrong Triton kernel is rejected by the operator tests' assertions; the right one not."""

from __future__ import annotations

import shutil

from effnet_fast.triton_kernels import OPERATORS
from tests.mutants.mutant import ROOT, assert_all_caught, judge, lost
from tests.mutants.triton import FOLDER, MUTANTS


def test_every_fault_still_has_its_place():
    assert not lost(MUTANTS, FOLDER)


def test_every_mutant_is_caught(tmp_path, capsys):
    def package(mutant):
        place = tmp_path / (mutant.name if mutant else "unchanged").replace(" ", "_")
        shutil.copytree(
            ROOT / "effnet_fast", place / "effnet_fast", ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
        if mutant:
            mutant.apply(place / FOLDER)
        return place

    def verdict(place, mutant):
        # A fault in one operator's kernel is looked for there: an interpreter is slow.
        only = mutant.file.removesuffix(".py") if mutant else ""
        environment = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        return judge(place, "triton", environment, only=only if only in OPERATORS else "")

    assert_all_caught("Triton", MUTANTS, package, verdict, capsys)
