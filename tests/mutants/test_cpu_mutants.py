"""Every deliberately wrong CPU kernel is rejected by the operator tests' assertions; the right one is not."""

from __future__ import annotations

import pytest

from effnet_fast import native
from effnet_fast.measure import environment
from tests.mutants.build import Workshop
from tests.mutants.cpu import FOLDER, MUTANTS, UNIT_MUTANTS
from tests.mutants.mutant import assert_all_caught, judge, lost


def test_every_fault_still_has_its_place():
    """A mutant whose source line was rewritten must be rewritten, too; said before anything is compiled."""
    assert not lost(MUTANTS + UNIT_MUTANTS, FOLDER)


def assert_caught(mutants, isa, folder, capsys):
    def verdict(place, mutant):
        return judge(place, "cpu", {"EFFNET_FAST_CPU_ISA": isa, "OMP_NUM_THREADS": "2"})

    assert_all_caught(f"CPU ({isa})", mutants, Workshop(folder, isa).package, verdict, capsys)


def test_every_mutant_is_caught(tmp_path, capsys):
    assert_caught(MUTANTS, "avx2" if "avx2" in native.cpu_isas() else "portable", tmp_path, capsys)


# By what Linux says of the CPU, not by what the library found: one that lost the set still has this test, and
# fails it. Without such a CPU none of these kernels can run.
@pytest.mark.skipif(environment.cpu_isa() != "avx512_amx", reason="this CPU has no matrix unit")
def test_every_mutant_of_the_matrix_unit_is_caught(tmp_path, capsys):
    assert_caught(UNIT_MUTANTS, "avx512_amx", tmp_path, capsys)
