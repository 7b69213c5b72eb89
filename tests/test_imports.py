"""Who may import whom, read from the source, and what importing the package may not do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import effnet_fast

PACKAGE = Path(effnet_fast.__file__).parent
REPOSITORY = PACKAGE.parent

# A part imports parts of lower rank only (and its own modules). Parts of one rank do not know each other.
RANKS = {
    "native": 0,
    "tuned_files": 0,
    "triton_kernels": 1,
    "backends": 1,
    "ops": 2,
    "testing": 3,
    "nn": 3,
    "models": 4,
    "images": 5,
    "inference": 5,
    "measure": 4,
    "fusion": 6,
    "cli": 8,
    "benchmarks": 7,
    "bench_subject": 6,
    "bench_command": 7,
    "classification": 6,
    "classify_command": 7,
    "plan_command": 7,
    "scaling": 6,
    "scale_command": 7,
    "tune_command": 7,
}
# Specification files: no package but torch and the standard library, and none of ours but each other.
SPECIFICATION = ("schemas", "geometry", "validation", "fakes", "reference")
TORCH_ONLY = ("schemas", "geometry", "validation", "fakes", "reference", "containers", "composition", "forms")


def _modules() -> list[Path]:
    files = [path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts]
    files += [path for path in (REPOSITORY / "benchmarks").rglob("*.py") if "__pycache__" not in path.parts]
    return sorted(files)


def _name(path: Path) -> list[str]:
    parts = list(path.relative_to(REPOSITORY).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute names of all imported modules, and whether the import runs when the module is loaded."""
    tree = ast.parse(path.read_text())
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for inner in ast.walk(outer)
    }
    # `if TYPE_CHECKING:` bodies are for type checkers.
    lazy |= {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test)
        for inner in ast.walk(outer)
    }
    package = _name(path) if path.name == "__init__.py" else _name(path)[:-1]
    found = []
    for node in ast.walk(tree):
        eager = node not in lazy
        if isinstance(node, ast.Import):
            found += [(alias.name, eager) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(f"{module}.{alias.name}", eager) for alias in node.names]
    return found


def _part(name: str) -> str | None:
    pieces = name.split(".")
    if pieces[0] == "benchmarks":
        return "benchmarks"
    return pieces[1] if pieces[0] == "effnet_fast" and len(pieces) > 1 else None


@pytest.mark.parametrize("path", _modules(), ids=lambda path: ".".join(_name(path)))
def test_imports_go_one_way(path) -> None:
    part = _part(".".join(_name(path)))
    if part is None:
        return  # effnet_fast/__init__.py gathers public names
    assert part in RANKS, f"{part} has no rank: add it to the table"
    for imported, _ in _imports(path):
        other = _part(imported)
        if other in RANKS and other != part:
            assert RANKS[other] < RANKS[part], f"{part} imports {other}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: ".".join(_name(path)))
def test_nothing_imports_tests_or_triton_at_load(path) -> None:
    for imported, eager in _imports(path):
        assert imported.split(".")[0] != "tests"
        if "triton_kernels" not in path.parts:
            assert not (imported.split(".")[0] == "triton" and eager), "triton is imported lazily"


@pytest.mark.parametrize("name", TORCH_ONLY)
def test_specification_imports_torch_alone(name) -> None:
    for imported, _ in _imports(PACKAGE / "ops" / f"{name}.py"):
        top = imported.split(".")[0]
        if top == "effnet_fast":
            assert imported.split(".")[2] in (SPECIFICATION if name in SPECIFICATION else TORCH_ONLY)
        else:
            assert top == "torch" or top in sys.stdlib_module_names


def test_public_names() -> None:
    assert sorted(effnet_fast.__all__) == sorted(set(effnet_fast.__all__))
    for name in effnet_fast.__all__:
        assert hasattr(effnet_fast, name), name
    assert {"InferenceEngine", "create_model", "ops", "__version__"} <= set(effnet_fast.__all__)


_QUIET_IMPORT = """
import os, sys, torch

def refuse(*args, **kwargs):
    raise AssertionError("the import asked about a device")

before = dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state(), torch.get_default_dtype()
triton_before = "triton" in sys.modules
for name in ("is_available", "device_count", "current_device", "get_device_properties", "init"):
    setattr(torch.cuda, name, refuse)
import effnet_fast
import effnet_fast.ops
after = dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state(), torch.get_default_dtype()
assert before[0] == after[0], "environment"
assert before[1] == after[1] and before[3] == after[3], "settings"
assert torch.equal(before[2], after[2]), "random state"
assert ("triton" in sys.modules) == triton_before, "triton"
assert not torch.cuda.is_initialized()
for name in ("timm", "torchvision", "torch._inductor"):
    assert name not in sys.modules, name
"""


def test_importing_asks_no_device_and_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _QUIET_IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
