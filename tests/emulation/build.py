"""Builds the emulator as Python modules, one an operator: ``python -m tests.emulation.build`` builds all, or
those that it is given.

A module is csrc/emulation without the other operators' bindings. Objects and modules are kept under
build/emulation by the hash of what they are made of, so that a second run compiles nothing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pybind11

# The mutants have another: a folder with a csrc of its own.
ROOT = Path(os.environ.get("EFFNET_FAST_EMULATION_ROOT", Path(__file__).parents[2]))
EMULATION = ROOT / "csrc" / "emulation"
FOLDER = ROOT / "build" / "emulation"
NAME = "effnet_fast_emulation"
FLAGS = ["-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
         "-Wno-unknown-pragmas", "-DEFFNET_FAST_EMULATION", f"-I{pybind11.get_include()}",
         f"-I{sysconfig.get_paths()['include']}", *os.environ.get("CXXFLAGS", "").split()]  # fmt: skip


def bound_operators() -> list[str]:
    return sorted(path.stem.removeprefix("bind_") for path in EMULATION.glob("bind_*.cpp"))


def sources(operator: str) -> list[Path]:
    shared = [path for path in EMULATION.glob("*.cpp") if not path.stem.startswith("bind_")]
    return [*sorted(shared), EMULATION / f"bind_{operator}.cpp"]


def _with_includes(source: Path, found: dict[Path, str]) -> dict[Path, str]:
    """`source` and everything of ours that it includes, with their texts."""
    if source not in found:
        found[source] = source.read_text()
        for name in re.findall(r'^#include "(.+)"', found[source], re.MULTILINE):
            _with_includes((source.parent / name).resolve(), found)
    return found


@functools.cache
def compiler() -> tuple[str, str]:
    """The C++ compiler, ``$CXX`` or g++, and what it says of its version."""
    path = os.environ.get("CXX", "g++")
    return path, subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join([*compiler(), *FLAGS, *parts]).encode()).hexdigest()[:16]


def _make(target: Path, command: list[str]) -> Path:
    """`target`, by `command` with ``-o`` another name first: no process ever sees half a file."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            result = Path(folder) / target.name
            run = subprocess.run([*command, "-o", str(result)], capture_output=True, text=True)
            if run.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")
            result.replace(target)
    return target


def _compile(source: Path) -> Path:
    key = _key(*(text for _, text in sorted(_with_includes(source.resolve(), {}).items())))
    return _make(FOLDER / f"{source.stem}-{key}.o", [compiler()[0], *FLAGS, "-c", str(source)])


def build(files: list[Path]) -> Path:
    """The path of the module made of `files`; RuntimeError with the compiler's message."""
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        objects = [str(path) for path in pool.map(_compile, files)]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return _make(FOLDER / _key(*objects) / (NAME + suffix), [compiler()[0], "-shared", *objects])


@functools.cache
def module(operator: str | Path) -> ModuleType:
    """The built and imported module of an operator, or of the kernels in a file of their own."""
    files = sources(operator) if isinstance(operator, str) else [*sources("")[:-1], operator]
    # The last part of the name is the module's own; pybind11 keeps one module for each whole name.
    spec = importlib.util.spec_from_file_location(f"{files[-1].stem}.{NAME}", build(files))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


if __name__ == "__main__":
    for name in sys.argv[1:] or bound_operators():
        build(sources(name))
