"""What the kernels need: finding it, loading each part on its own, and saying why one is missing.

``_C_cpu`` and ``_C_cuda`` implement operators that :mod:`effnet_fast.ops.schemas` declares. They are built on
PyTorch's stable ABI and know nothing of Python, so loading is ``torch.ops.load_library`` and a failure of one
leaves the other. Triton is a Python package; it is imported when its backend is first asked for.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

LIBRARIES = ("cpu", "cuda")

# Triton reads this when a kernel is declared, so it holds for the life of the process.
INTERPRETS_TRITON = os.environ.get("TRITON_INTERPRET") == "1"

# Names the instruction set of the CPU kernels; the library reads it once, when it is loaded.
CPU_ISA_VARIABLE = "EFFNET_FAST_CPU_ISA"

_logger = logging.getLogger("effnet_fast")


@dataclass(frozen=True)
class Library:
    """One compiled library: where it is, and why it is not in use (empty when it is)."""

    name: str
    path: Path | None
    reason: str


def _load(name: str) -> Library:
    files = sorted(Path(__file__).parent.glob(f"_C_{name}*.so"))
    if not files:
        return Library(name, None, f"the library _C_{name} was not built (see README, 'Install')")
    path = files[-1]
    try:
        torch.ops.load_library(str(path))
        if name == "cpu":
            torch.ops.effnet_fast.cpu_isa()  # ValueError for an EFFNET_FAST_CPU_ISA that cannot run here
    except (OSError, RuntimeError, ValueError) as error:
        return Library(name, path, f"{path.name} does not load: {str(error).splitlines()[0]}")
    return Library(name, path, "")


@functools.cache
def load() -> dict[str, Library]:
    """Load every library once; never raises. Warns, hence once, of a CPU on which the kernels are slow."""
    libraries = {name: _load(name) for name in LIBRARIES}
    if not libraries["cpu"].reason:
        _warn_if_slow(torch.ops.effnet_fast.cpu_isa())
    return libraries


@functools.cache
def _triton() -> tuple[str, str]:
    """Triton's version, and why it cannot be used (empty when it can)."""
    try:
        module = importlib.import_module("triton")
        importlib.import_module("triton.language")
        return module.__version__, ""
    except Exception as error:  # whatever a broken installation raises, the other backends go on
        text = (str(error).splitlines() or [""])[0]
        return "", f"triton cannot be imported: {type(error).__name__}: {text}"


def reason(name: str) -> str:
    """Why ``"cpu"``, ``"cuda"`` or ``"triton"`` is not in use; empty when it is."""
    return _triton()[1] if name == "triton" else load()[name].reason


def available(name: str) -> bool:
    """Whether library ``"cpu"`` or ``"cuda"`` is loaded, or ``"triton"`` can be imported."""
    return not reason(name)


def cpu_isas() -> tuple[str, ...]:
    """Instruction sets of the CPU kernels that this machine runs, best first; empty without the library."""
    return tuple(torch.ops.effnet_fast.cpu_isas().split(",")) if available("cpu") else ()


def cpu_isa() -> str | None:
    """The instruction set in use: the best, or what EFFNET_FAST_CPU_ISA names; None without the library."""
    return torch.ops.effnet_fast.cpu_isa() if available("cpu") else None


def cpu_isa_is_forced() -> bool:
    """Whether EFFNET_FAST_CPU_ISA, and not the machine, decides on the instruction set."""
    return os.environ.get(CPU_ISA_VARIABLE, "") not in ("", "auto")


def slowness(isa: str | None) -> str:
    """Why the CPU kernels are slow with instruction set `isa`; empty where they are as fast as they can be.

    On x86-64 the portable vectors are SSE2: half of AVX2's width, and no fused multiply-add. Elsewhere
    (NEON) they are the machine's own.
    """
    if isa != "portable" or platform.machine().lower() not in ("x86_64", "amd64"):
        return ""
    why = (
        f"{CPU_ISA_VARIABLE} asks for it" if cpu_isa_is_forced() else "this CPU has no AVX2 with FMA and F16C"
    )
    return f"the CPU kernels run with portable vectors, several times slower than with AVX2 or AVX-512: {why}"


def _warn_if_slow(isa: str) -> None:
    """Log a warning where nobody chose to be slow."""
    if slowness(isa) and not cpu_isa_is_forced():
        _logger.warning(slowness(isa))


def build_info() -> dict[str, str]:
    """One line per fact, for bug reports and ``effnet-fast info``."""
    info = {"torch": torch.__version__}
    for name, library in load().items():
        info[f"_C_{name}"] = library.reason or f"loaded ({library.path.name})"
    version, missing = _triton()
    info["triton"] = missing or version + (" (interpreted on the CPU)" if INTERPRETS_TRITON else "")
    info["cpu isa"] = f"{cpu_isa()} (machine runs {', '.join(cpu_isas())})" if available("cpu") else "-"
    return info
