"""Builds tests/cpp/kernels_test.cpp with sanitizers and runs it: ``python -m tests.cpp.run``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
CPU = ROOT / "csrc" / "cpu"
TORCH_FREE = [
    *sorted(CPU.glob("isa_*.cpp")),
    CPU / "dispatch.cpp",
    CPU / "pack.cpp",
    CPU / "scratch.cpp",
    ROOT / "tests" / "cpp" / "kernels_test.cpp",
]
# -O1: the kernels' templates take minutes at -O3 with sanitizers, and the accesses are the same.
FLAGS = ["-std=c++20", "-O1", "-g1", "-Wall", "-Wno-ignored-attributes", "-Wno-psabi",
         "-Wno-maybe-uninitialized", "-Wno-uninitialized", "-fno-omit-frame-pointer"]  # fmt: skip
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def build(folder: Path, sanitizers: list[str]) -> Path:
    """Compile and link; raises CalledProcessError with the compiler's output shown."""
    compiler = os.environ.get("CXX", "g++")

    def compile_one(source: Path) -> Path:
        target = folder / (source.stem + ".o")
        subprocess.run([compiler, *FLAGS, *sanitizers, "-c", str(source), "-o", str(target)], check=True)
        return target

    jobs = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(compile_one, TORCH_FREE))
    program = folder / "kernels_test"
    subprocess.run([compiler, *sanitizers, "-pthread", *map(str, objects), "-o", str(program)], check=True)
    return program


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), SANITIZERS)
        return subprocess.run([str(program)]).returncode


if __name__ == "__main__":
    sys.exit(main())
