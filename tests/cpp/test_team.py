"""Teams of threads (csrc/cpu/team.h) under ThreadSanitizer and AddressSanitizer."""

from __future__ import annotations

import pytest

from tests.cpp.build import build_team, native, threads
from tests.cpp.run import checks, run


@pytest.mark.parametrize("sanitized", [threads(), native()], ids=lambda target: target.name)
def test_every_part_of_every_loop_is_run_once_without_a_race(sanitized):
    finished = run(build_team(sanitized), sanitized)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert checks(finished) == (35, 0)
