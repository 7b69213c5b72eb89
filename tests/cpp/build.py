"""Builds the torch-free tests of the CPU kernels, one executable a kernel.

The kernels are compiled once and linked into each. Objects and executables are kept under build/cpp by the
hash of what they are made of, so that a second run compiles nothing; a lock a file keeps processes from
making the same one at the same time.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "cpp"
CPU = ROOT / "csrc" / "cpu"
TESTS = ROOT / "tests" / "cpp"

# What does not need PyTorch: everything but the registration with its dispatcher.
LIBRARY = [*sorted(CPU.glob("isa_*.cpp")), CPU / "dispatch.cpp", CPU / "pack.cpp", CPU / "scratch.cpp"]
KERNELS = sorted(path.stem.removesuffix("_test") for path in TESTS.glob("*_test.cpp"))

_FLAGS = ["-std=c++20", "-g1", "-Wall", "-Wextra", "-Wno-ignored-attributes", "-Wno-psabi", "-pthread"]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


@dataclass(frozen=True)
class Target:
    """A machine that the tests are built for.

    Attributes:
        compiler: the command of its C++ compiler.
        flags: for compiling and linking.
        optimise: level for the kernels; `optimise_tests`: for the loops that they are compared with.
        emulator: what runs an executable where this machine cannot; None where it is built and not run.
    """

    name: str
    compiler: tuple[str, ...]
    flags: tuple[str, ...]
    optimise: str
    optimise_tests: str = "-O1"
    emulator: tuple[str, ...] | None = ()


def native() -> Target:
    """This machine, with AddressSanitizer and UndefinedBehaviorSanitizer, by ``$CXX`` or g++.

    The kernels are not optimised: that halves the time to compile, and an optimiser only removes accesses.
    """
    return Target("native", (os.environ.get("CXX", "g++"),), (*_FLAGS, *_SANITIZERS), "-O0")


def threads() -> Target:
    """This machine, with ThreadSanitizer."""
    return Target("threads", (os.environ.get("CXX", "g++"),), (*_FLAGS, "-fsanitize=thread"), "-O1")


def aarch64() -> Target:
    """64-bit ARM, where the portable vectors are NEON: optimised, since what the compiler makes of them is
    the question; without sanitizers, which an emulator does not carry.

    The compiler is Debian's g++-aarch64-linux-gnu, else the clang of the Python package ziglang; the emulator
    is qemu-user. Raises RuntimeError without a compiler.
    """
    if compiler := shutil.which("aarch64-linux-gnu-g++"):
        command = [compiler]
    elif importlib.util.find_spec("ziglang"):
        command = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl"]
    else:
        raise RuntimeError(
            "no compiler for aarch64: install the Debian package g++-aarch64-linux-gnu, or "
            "`pip install ziglang`; to run what it builds, qemu-user-static"
        )
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    return Target(
        "aarch64", tuple(command), (*_FLAGS, "-static"), "-O2", emulator=(emulator,) if emulator else None
    )


TARGETS = {"native": native, "aarch64": aarch64}

NO_EMULATOR = "no emulator: install the Debian package qemu-user-static"


def lacking(name: str) -> str:
    """Why the tests of a target cannot be built and run on this machine; empty where they can."""
    try:
        target = TARGETS[name]()
    except RuntimeError as error:
        return str(error)
    return NO_EMULATOR if target.emulator is None else ""


def _silent(line: str) -> None:
    pass


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    return subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True).stdout


@functools.cache
def _headers(folder: Path) -> str:
    return "\0".join(path.read_text() for path in sorted([*folder.rglob("*.h"), *folder.rglob("*.inl")]))


def _key(target: Target, *parts: str) -> str:
    known = "\0".join([_version(target.compiler), *target.compiler, *target.flags, *parts])
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def _make(path: Path, command: list[str], note: Callable[[str], None]) -> Path:
    """`path`, by `command` with ``-o`` another name first: no process ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path
        note(f"making {path.name}")
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            result = Path(folder) / path.name
            run = subprocess.run([*command, "-o", str(result)], capture_output=True, text=True)
            if run.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")
            result.replace(path)
    return path


def _compile(target: Target, source: Path, note: Callable[[str], None]) -> Path:
    # Every header that it may include: what takes long includes all of csrc/cpu.
    headers = [_headers(ROOT / "csrc" / "common"), _headers(CPU)]
    if source.parent == TESTS:
        headers.append(_headers(TESTS))
    level = target.optimise_tests if source.parent == TESTS else target.optimise
    name = f"{source.stem}-{target.name}-{_key(target, level, source.read_text(), *headers)}.o"
    return _make(FOLDER / name, [*target.compiler, *target.flags, level, "-c", str(source)], note)


def build(kernel: str, target: Target, note: Callable[[str], None] = _silent) -> Path:
    """The executable that tests `kernel`, one of `KERNELS`; RuntimeError with the compiler's message.

    `note` is called with a line for every file that has to be made.
    """
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        sources = [*LIBRARY, TESTS / "harness.cpp", TESTS / f"{kernel}_test.cpp"]
        objects = [str(path) for path in pool.map(lambda source: _compile(target, source, note), sources)]
    name = f"{kernel}-{target.name}-{_key(target, *objects)}"
    return _make(FOLDER / name, [*target.compiler, *target.flags, *objects], note)


def build_team(target: Target, note: Callable[[str], None] = _silent) -> Path:
    """The executable that tests teams of threads (csrc/cpu/team.h), in which no kernel is."""
    objects = [str(_compile(target, source, note)) for source in (CPU / "team.cpp", TESTS / "team.cpp")]
    name = f"team-{target.name}-{_key(target, *objects)}"
    return _make(FOLDER / name, [*target.compiler, *target.flags, *objects], note)
