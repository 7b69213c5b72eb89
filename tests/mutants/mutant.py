"""What a mutant is, and how a set of them is judged: the same for every backend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOBS = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))


@dataclass(frozen=True)
class Mutant:
    """Replace `correct`, which occurs once in `file`, by `wrong`."""

    name: str
    file: str
    correct: str
    wrong: str

    def apply(self, folder: Path) -> None:
        """Edit the file in `folder`."""
        path = folder / self.file
        text = path.read_text()
        if text.count(self.correct) != 1:
            raise ValueError(
                f"mutant {self.name!r}: {self.file} has {text.count(self.correct)} places {self.correct!r}, "
                "expected 1"
            )
        path.write_text(text.replace(self.correct, self.wrong))


def lost(mutants: Sequence[Mutant], folder: str) -> list[str]:
    """Names of those whose line was rewritten: they must be rewritten, too."""
    return [m.name for m in mutants if (ROOT / folder / m.file).read_text().count(m.correct) != 1]


def judge(
    place: Path, backend: str, environment: Mapping[str, str], *, only: str = ""
) -> subprocess.CompletedProcess:
    """The verdict on the package in `place`, from a process of its own; see the oracle for `only`."""
    return subprocess.run(
        [sys.executable, "-m", "tests.mutants.oracle", str(place), backend, only],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip


def assert_all_caught(
    what: str,
    mutants: Sequence[Mutant],
    package: Callable[[Mutant | None], Path],
    verdict: Callable[[Path, Mutant | None], subprocess.CompletedProcess],
    capsys,
) -> None:
    """The unchanged package passes, and no mutant does; `package(mutant)` makes the copy to be judged."""
    correct = verdict(package(None), None)
    assert correct.returncode == 0, correct.stdout + correct.stderr
    with ThreadPoolExecutor(JOBS) as pool:
        verdicts = dict(zip(mutants, pool.map(lambda m: verdict(package(m), m), mutants), strict=True))
    # A crash is no verdict: the oracle itself must have said no.
    caught = [m.name for m, v in verdicts.items() if v.returncode == 1 and v.stdout.startswith("caught by")]
    with capsys.disabled():
        sys.stdout.write(f"\n{what} mutants caught: {len(caught)}/{len(mutants)}\n")
    escaped = {m.name: v.stdout + v.stderr[-500:] for m, v in verdicts.items() if m.name not in caught}
    assert not escaped, escaped
