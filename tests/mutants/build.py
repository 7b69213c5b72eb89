"""Builds `_C_cpu` from a copy of the sources, with one instruction set standing for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.utils import cpp_extension

from tests.mutants.cpu import FOLDER
from tests.mutants.mutant import JOBS, ROOT, Mutant

#: Of x86-64, as in csrc/cpu/kernels.h.
ISAS = ("avx512_amx", "avx512_bf16", "avx512", "avx2", "portable")

# -O0 compiles in less than half the time of -O1; a fault in the source is a fault at every level.
FLAGS = [
    "-std=c++20",
    "-O0",
    "-fPIC",
    "-w",
    "-DTORCH_TARGET_VERSION=0x020b000000000000",
    "-DTORCH_STABLE_ONLY",
]


def _compile(source: Path, target: Path) -> Path:
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, *FLAGS, *includes, "-c", str(source), "-o", str(target)], check=True)
    return target


class Workshop:
    """Sources, and objects of everything but the kernels of `isa`, under `folder`."""

    def __init__(self, folder: Path, isa: str) -> None:
        self.folder, self.isa = folder, isa
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        cpu = folder / "csrc" / "cpu"
        others = [name for name in ISAS if name != isa]
        stand_ins = "".join(
            f"const KernelTable& {o}_kernels() {{ return {isa}_kernels(); }}\n" for o in others
        )
        (cpu / "stand_ins.cpp").write_text(
            f'#include "kernels.h"\nnamespace effnet_fast {{\n{stand_ins}}}  // namespace effnet_fast\n'
        )
        shared = [source for source in sorted(cpu.glob("*.cpp")) if not source.name.startswith("isa_")]
        with ThreadPoolExecutor(JOBS) as pool:
            self.objects = list(pool.map(lambda s: _compile(s, folder / f"{s.stem}.o"), shared))

    def package(self, mutant: Mutant | None) -> Path:
        """A folder with the package and a library that has the fault, or none."""
        place = self.folder / (mutant.name if mutant else "unchanged").replace(" ", "_")
        shutil.copytree(self.folder / "csrc", place / "csrc")
        if mutant:
            mutant.apply(place / FOLDER)
        kernels = _compile(place / "csrc" / "cpu" / f"isa_{self.isa}.cpp", place / "kernels.o")
        package = place / "effnet_fast"
        shutil.copytree(ROOT / "effnet_fast", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
        subprocess.run(
            ["g++", "-shared", str(kernels), *map(str, self.objects), *libraries,
             "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(package / "_C_cpu.abi3.so")],
            check=True,
        )  # fmt: skip
        return place
