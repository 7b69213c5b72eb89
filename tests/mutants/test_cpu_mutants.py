"""Every deliberately wrong CPU kernel is rejected by the operator tests' assertions; the right one is not."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from effnet_fast import native
from tests.mutants.build import JOBS, ROOT, Workshop
from tests.mutants.cpu import MUTANTS


def _judge(place: Path, isa: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"EFFNET_FAST_CPU_ISA": isa, "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-m", "tests.mutants.oracle", str(place)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_every_fault_still_has_its_place():
    """A mutant whose source line was rewritten must be rewritten, too; said before anything is compiled."""
    lost = [m.name for m in MUTANTS if (ROOT / "csrc/cpu" / m.file).read_text().count(m.correct) != 1]
    assert not lost


def test_every_mutant_is_caught(tmp_path, capsys):
    isa = "avx2" if "avx2" in native.cpu_isas() else "portable"
    workshop = Workshop(tmp_path, isa)

    def verdict(mutant):
        return _judge(workshop.package(mutant.name, mutant.file, mutant.correct, mutant.wrong), isa)

    correct = _judge(workshop.package("unchanged"), isa)
    assert correct.returncode == 0, correct.stdout + correct.stderr
    with ThreadPoolExecutor(JOBS) as pool:
        verdicts = dict(zip(MUTANTS, pool.map(verdict, MUTANTS), strict=True))
    # A crash is no verdict: the oracle itself must have said no.
    caught = [m.name for m, v in verdicts.items() if v.returncode == 1 and v.stdout.startswith("caught by")]
    with capsys.disabled():
        sys.stdout.write(f"\nCPU mutants caught: {len(caught)}/{len(MUTANTS)} ({isa})\n")
    escaped = {m.name: v.stdout + v.stderr[-500:] for m, v in verdicts.items() if m.name not in caught}
    assert not escaped, escaped
