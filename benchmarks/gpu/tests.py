"""The tests of operators, engine and Triton kernels with a GPU present: every target that the machine has."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.steps import FAILED, PASSED, Failed, NotRun, Outcome, Step, Workspace, last_line, one_line

FOLDERS = ("tests/ops", "tests/inference", "tests/triton")

#: Stands for pyproject.toml's: pytest-benchmark, which that has an option of, need not be here.
OPTIONS = "--import-mode=importlib -q --strict-markers -p no:cacheprovider"

#: A test that is left out on a GPU machine proves nothing there, so each reason must be one of these.
ALLOWED_SKIPS = ("the reference allocates its intermediates",)


def _test(space: Workspace) -> Outcome:
    if "pytest" in (missing := _missing_packages(space)):
        raise NotRun("pytest is missing")
    path = space.out / "tests.xml"
    path.unlink(missing_ok=True)
    done = space.python(
        "test", "-m", "pytest", *FOLDERS, "-m", "not slow", "--continue-on-collection-errors",
        "-o", f"addopts={OPTIONS}", f"--junitxml={path}", "--tb=short",
    )  # fmt: skip
    if not path.exists():
        raise Failed(f"pytest broke off: {last_line(done)}; see {done.log.name}")
    outcome = judge(path)
    if missing:
        outcome.details.append(f"not here: {', '.join(missing)}")
    if done.timed_out:
        outcome.status = FAILED
        outcome.summary += f"; not finished within {space.limit_seconds:.0f} s"
    return outcome


def _missing_packages(space: Workspace) -> list[str]:
    names = ("pytest", "hypothesis", "expecttest", "timm", "torchvision")
    code = f"import importlib.util as u; print(*[n for n in {names} if not u.find_spec(n)])"
    return space.python("test-packages", "-c", code).output.split()


def judge(path: Path) -> Outcome:
    """What pytest's XML says: failures, and skips without a good reason, by name."""
    counts: Counter[str] = Counter()
    failed, skipped, lacking = [], [], []
    for name, kind, message in _cases(path):
        package = _missing_module(message) if kind == "error" else None
        if package:
            lacking.append(f"not run: {name}: {package} is missing")
            kind = "not run"
        elif kind in ("failure", "error"):
            failed.append(f"{name}: {one_line(message, width=100)}")
            kind = "failed"
        elif kind == "skipped" and not any(reason in message for reason in ALLOWED_SKIPS):
            skipped.append(f"skipped: {name}: {one_line(message, width=100)}")
        counts[kind] += 1
    kinds = ("passed", "failed", "skipped", "not run")
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind]) or "no tests"
    wrong = failed or skipped or not counts["passed"]
    rows = [{"what": kind, "value": counts[kind], "unit": "tests"} for kind in kinds]
    return Outcome("test", FAILED if wrong else PASSED, summary, [*failed, *skipped, *lacking], rows)


def _cases(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, passed/failure/error/skipped, and message of each test."""
    for case in ElementTree.parse(path).iter("testcase"):
        parts = [case.get("classname", "").rpartition(".")[2], case.get("name", "")]
        name = "::".join(part for part in parts if part)
        found = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        if found is None:
            yield name, "passed", ""
        else:
            yield name, found.tag, f"{found.get('message', '')} {found.text or ''}"


def _missing_module(message: str) -> str | None:
    """The package of others whose absence kept a test file from being read; None for any other error."""
    _, found, rest = message.partition("ModuleNotFoundError: No module named '")
    package = rest.partition("'")[0].partition(".")[0]
    return package if found and package not in ("effnet_fast", "benchmarks", "tests") else None


TEST = Step("test", "the tests with a GPU present", 450.0, _test)
