"""Every deliberately wrong CPU kernel is rejected by the operator tests' assertions; the right one is not."""

from __future__ import annotations

from effnet_fast import native
from tests.mutants.build import Workshop
from tests.mutants.cpu import FOLDER, MUTANTS
from tests.mutants.mutant import assert_all_caught, judge, lost


def test_every_fault_still_has_its_place():
    """A mutant whose source line was rewritten must be rewritten, too; said before anything is compiled."""
    assert not lost(MUTANTS, FOLDER)


def test_every_mutant_is_caught(tmp_path, capsys):
    isa = "avx2" if "avx2" in native.cpu_isas() else "portable"

    def verdict(place, mutant):
        return judge(place, "cpu", {"EFFNET_FAST_CPU_ISA": isa, "OMP_NUM_THREADS": "2"})

    assert_all_caught(f"CPU ({isa})", MUTANTS, Workshop(tmp_path, isa).package, verdict, capsys)
