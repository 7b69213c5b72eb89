"""The torch-free kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import re
import subprocess

from tests.cpp.run import SANITIZERS, build


def test_kernels_are_clean_under_sanitizers(tmp_path):
    run = subprocess.run([str(build(tmp_path, SANITIZERS))], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    counts = re.search(r"^(\d+) passed, 0 failed$", run.stdout, re.MULTILINE)
    assert counts is not None, run.stdout
    assert int(counts[1]) >= 500, run.stdout
