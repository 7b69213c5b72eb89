"""The CUDA C++ kernels, compiled for GPUs that need not be there: what each takes, and who launches it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resources import keys
from benchmarks.resources.machine_code import (
    Code,
    Resources,
    issue_slots,
    kernel_name,
    read_functions,
    read_resources,
)
from benchmarks.toolkit import ROOT, setup_facts

KERNELS = ROOT / "csrc" / "cuda"
#: Kept by the hash of what they are made of: a second run, or one that was interrupted, compiles what is new.
CUBINS = ROOT / "build" / "resources"
LAUNCHES = ROOT / "benchmarks" / "resources" / "launches.cpp"

#: squeeze_excite_gate is in one file with its registration, which needs PyTorch's headers.
SQUEEZE_EXCITE = """#include "launcher.h"
#include "squeeze_excite_gate_launch.h"
namespace effnet_fast::cuda {
template void launch_squeeze_excite_gate(const SqueezeExciteGateCall&, Launcher&);
}
"""

#: Of a multiprocessor: warps, blocks, bytes of shared memory. CUDA C++ Programming Guide, technical
#: specifications per compute capability; each has 65536 registers, given to warps by 256.
MULTIPROCESSORS = {
    "sm_80": (64, 32, 164 << 10),
    "sm_86": (48, 16, 100 << 10),
    "sm_89": (48, 24, 100 << 10),
    "sm_90": (64, 32, 228 << 10),
    "sm_100": (64, 32, 228 << 10),
    "sm_120": (48, 24, 100 << 10),
}
REGISTERS = 65536
#: That CUDA takes for itself of each block's shared memory.
RESERVED_SHARED_BYTES = 1024


class ToolkitError(RuntimeError):
    """No compiler, or one that refuses the kernels; the message says which and why."""


@dataclass(frozen=True)
class Unit:
    """One compilation: a file of kernels for a device. `storage` is of the maps."""

    device: str
    operator: str
    storage: str

    @property
    def title(self) -> str:
        return f"{self.device} {self.operator} {self.storage}"

    def source(self, folder: Path) -> Path:
        """The file to compile; what is generated goes to `folder`."""
        if self.operator != "squeeze_excite_gate":
            return KERNELS / f"{self.operator}_{self.storage}.cu"
        path = folder / "squeeze_excite_gate.cu"
        path.write_text(SQUEEZE_EXCITE)
        return path


def devices() -> list[str]:
    return list(MULTIPROCESSORS)


def operators() -> list[str]:
    """Operators with a file of kernels for each storage type."""
    return sorted(path.stem.removesuffix("_float16") for path in KERNELS.glob("*_float16.cu"))


def units(names: Sequence[str]) -> list[Unit]:
    """What networks need on the devices called `names`. The classifier is float32 in all of them."""
    found = []
    for name in names:
        for operator in operators():
            # expand_depthwise has kernels for maps of 16 bits alone.
            known = (KERNELS / f"{operator}_{storage}.cu" for storage in keys.storages_of(name))
            storages = [path.stem.removeprefix(f"{operator}_") for path in known if path.exists()]
            single = operator == "pointwise_conv" and "float32" not in storages
            found += [
                Unit(name, operator, storage) for storage in (*storages, *(["float32"] if single else []))
            ]
        found.append(Unit(name, "squeeze_excite_gate", "float32"))
    return found


@dataclass(frozen=True)
class Launched:
    """A kernel as `layers` layers launch it; `shared_bytes` is dynamic."""

    kernel: str
    threads: int
    shared_bytes: int
    layers: int


@functools.cache
def toolkit() -> tuple[Path, list[str]]:
    """nvcc, and the flags of the library; ToolkitError with what is missing."""
    facts = setup_facts()
    if facts["CUDA_ROOT"] is None:
        raise ToolkitError(f"the CUDA kernels cannot be compiled; missing: {facts['MISSING']}")
    # Line numbers change nothing in the code, but make it four times as large.
    flags = [flag for flag in facts["NVCC_FLAGS"] if flag != "-lineinfo"]
    return facts["CUDA_ROOT"] / "bin" / "nvcc", flags


@functools.cache
def versions() -> dict[str, str]:
    """What decides on the machine code."""
    nvcc, _ = toolkit()
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return {"nvcc": re.search(r"V([\d.]+)", text).group(1)}


def compile_units(
    wanted: Sequence[Unit], processes: int, on_done: Callable[[Unit], None] = lambda unit: None
) -> list[dict[str, object]]:
    """A row for each kernel of `wanted`, in order."""
    compiler, flags = toolkit()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorder = Recorder(folder)
        rows: dict[Unit, list[dict[str, object]]] = {}
        pool = ThreadPoolExecutor(processes)
        futures = {pool.submit(_compile, compiler, flags, unit, folder): unit for unit in wanted}
        try:
            for future in as_completed(futures):
                unit = futures[future]
                rows[unit] = list(_rows(unit, *future.result(), recorder.turns))
                on_done(unit)
        finally:
            pool.shutdown(cancel_futures=True)
        found = [row for unit in wanted for row in rows[unit]]
        for device in dict.fromkeys(unit.device for unit in wanted):
            _add_launches([row for row in found if row["device"] == device], recorder.launches(device))
    return found


def _compile(
    compiler: Path, flags: Sequence[str], unit: Unit, folder: Path
) -> tuple[dict[str, Code], dict[str, Resources]]:
    from effnet_fast.triton_kernels.offline import cuobjdump

    source = unit.source(folder)
    made_of = [versions()["nvcc"], *flags, unit.device, *with_includes(source).values()]
    cubin = CUBINS / f"{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()[:16]}.cubin"
    if not cubin.exists():
        CUBINS.mkdir(parents=True, exist_ok=True)
        partial = cubin.with_suffix(f".{os.getpid()}")
        command = [compiler, *flags, "-cubin", f"-arch={unit.device}", f"-I{KERNELS}", "-o", partial, source]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            raise ToolkitError(f"{unit.title} does not compile: {done.stderr.strip()}")
        partial.replace(cubin)
    return read_functions(cuobjdump("-sass", cubin)), read_resources(cuobjdump("-res-usage", cubin))


def with_includes(source: Path) -> dict[str, str]:
    """Name and text of `source` and of everything of ours that it includes."""
    found: dict[str, str] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path.name not in found:
            found[path.name] = path.read_text()
            names = re.findall(r'^#include "(.+)"', found[path.name], re.MULTILINE)
            waiting += [
                folder / name
                for name in names
                for folder in (path.parent, KERNELS)
                if (folder / name).exists()
            ]
    return dict(sorted(found.items()))


def _rows(
    unit: Unit,
    functions: dict[str, Code],
    resources: dict[str, Resources],
    turns: dict[str, tuple[int, float]],
) -> Iterator[dict[str, object]]:
    named = zip(functions, _demangle(functions), strict=True)
    for kernel, mangled in sorted((kernel_name(text), mangled) for mangled, text in named):
        code, taken = functions[mangled], resources[mangled]
        # LDGSTS is the asynchronous copy to shared memory.
        loads, wide_loads = code.accesses("LDG", "LDGSTS")
        stores, wide_stores = code.accesses("STG")
        yield {
            "device": unit.device,
            "operator": unit.operator,
            "storage": unit.storage,
            "kernel": kernel,
            "registers": taken.registers,
            "spilled_bytes": taken.spilled_bytes,
            "static_shared_bytes": taken.shared_bytes - (RESERVED_SHARED_BYTES if _reserves(unit) else 0),
            "instructions": len(code),
            "matrix": code.matrix,
            "tf32": code.rounds_to_tf32,
            "loads": loads,
            "wide_loads": wide_loads,
            "stores": stores,
            "wide_stores": wide_stores,
            "ffma": code.multiply_adds,
            "mufu": code.special,
            # ACQBULK waits for the launch before: griddepcontrol.wait, from sm_90.
            # CCTL is a prefetch to the L2 cache.
            "prefetched": code.before("ACQBULK").accesses("LDG", "LDGSTS", "CCTL")[0],
            "loop": _loop(code, *turns[kernel]) if kernel in turns else None,
            "fused": fused_slots(code, kernel),
        }


def _reserves(unit: Unit) -> bool:
    """Whether cuobjdump counts what CUDA reserves as a kernel's own: from sm_90."""
    return int(unit.device.removeprefix("sm_")) >= 90


def _loop(code: Code, outputs: int, copies: float) -> dict[str, object]:
    loop = code.hot_loop()
    if loop is None:
        raise ToolkitError(
            "a depthwise kernel has no loop with multiply-adds: benchmarks/resources reads it wrong"
        )
    return {
        "outputs": outputs,
        "instructions": len(loop),
        "ffma": loop.multiply_adds,
        "mufu": loop.special,
        "slots_per_output": round(issue_slots(loop, outputs, copies), 2),
    }


_FUSED = re.compile(r"ExpandDepthwiseTraits<\w+, (\d), (\d), (\d+), (\d+), ")


def fused_shape(kernel: str) -> tuple[int, ...] | None:
    """Kernel size, stride, channels at a time and rows of an item of an `expand_depthwise` kernel; None for
    any other.
    """
    found = _FUSED.search(kernel)
    return found and tuple(map(int, found.groups()))


def fused_slots(code: Code, kernel: str) -> dict[str, float] | None:
    """Instructions of both phases of an `expand_depthwise` kernel; None for any other.

    The innermost loops with matrix products are the expansion's, one for each number of input channels, and
    the depthwise convolution's, of tiles with every row and of others. `per_value`: of the expansion from 24
    channels (two products of 16 for 8 values a row, 4 in each lane). `per_output`: of a whole tile.
    """
    shape = fused_shape(kernel)
    if shape is None:
        return None
    _, _, chunk, rows = shape
    loops = [loop for loop in code.innermost_loops() if loop.families["HMMA"]]
    expansions = [
        len(loop) for loop in loops if not loop.families["STG"] and loop.families["HMMA"] == 2 * chunk // 8
    ]
    filters = [len(loop) for loop in loops if loop.families["STG"]]
    if not expansions or not filters:
        raise ToolkitError("expand_depthwise has no loop for a phase: benchmarks/resources reads it wrong")
    return {
        "per_value": round(min(expansions) / (chunk // 2), 2),
        "per_output": round(min(filters) / (8 * rows), 2),
    }


def _demangle(names: Iterable[str]) -> list[str]:
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Recorder:
    """launches.cpp, compiled: what the library would launch, and what the depthwise kernels make in a turn.

    Attributes:
        turns: kernel -> outputs of a turn of a thread, 16-byte copies for each of them.
    """

    def __init__(self, folder: Path) -> None:
        self._program = folder / "launches"
        command = ["g++", "-std=c++20", "-O0", "-w", "-DEFFNET_FAST_EMULATION", "-o", self._program, LAUNCHES]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            raise ToolkitError(f"launches.cpp does not compile: {done.stderr.strip()}")
        blocks = self._ask([])
        self.turns = {kernel_name(name): (int(outputs), float(copies)) for name, outputs, copies in blocks[0]}

    def _ask(self, lines: Sequence[str]) -> list[list[list[str]]]:
        done = subprocess.run(
            [self._program], input="\n".join(lines), capture_output=True, text=True, check=True
        )
        # An answer ends with an empty line, and may have no other.
        answers: list[list[list[str]]] = [[]]
        for line in done.stdout.splitlines():
            if line:
                answers[-1].append(line.split("\t"))
            else:
                answers.append([])
        return answers[:-1]

    def launches(self, device: str) -> list[Launched]:
        """What the layers of B0..B7 launch on `device`."""
        multiprocessors = keys.devices()[device].multiprocessors
        shared = MULTIPROCESSORS[device][2]
        counted = [
            (f"{line} {multiprocessors} {shared}", count)
            for storage in keys.storages_of(device)
            for line, count in keys.call_lines(storage)
        ]
        answers = self._ask([line for line, _ in counted])[1:]
        return [
            Launched(kernel_name(kernel), int(threads), int(shared_bytes), count)
            for (_, count), answer in zip(counted, answers, strict=True)
            for kernel, threads, shared_bytes in answer
        ]


def _add_launches(rows: Sequence[dict[str, object]], launches: Sequence[Launched]) -> None:
    """What the layers of B0..B7 make of each kernel; launches of other kernels than those are left out."""
    for row in rows:
        mine = [launched for launched in launches if launched.kernel == row["kernel"]]
        shared = [row["static_shared_bytes"] + launched.shared_bytes for launched in mine]
        warps = [
            resident_warps(row["device"], row["registers"], launched.threads, bytes_)
            for launched, bytes_ in zip(mine, shared, strict=True)
        ]
        row["layers"] = sum(launched.layers for launched in mine)
        row["threads"] = sorted({launched.threads for launched in mine})
        row["shared_bytes"] = [min(shared), max(shared)] if mine else []
        most = MULTIPROCESSORS[row["device"]][0]
        row["occupancy"] = [round(min(warps) / most, 3), round(max(warps) / most, 3)] if mine else []


def resident_warps(device: str, registers: int, threads: int, shared_bytes: int) -> int:
    """Warps of as many blocks as share a multiprocessor; 0 when not even one fits."""
    most_warps, most_blocks, shared = MULTIPROCESSORS[device]
    warps = -(-threads // 32)
    warp_registers = -(-registers * 32 // 256) * 256
    # Each of the four schedulers has its own quarter of the registers.
    by_registers = REGISTERS // 4 // warp_registers * 4 // warps
    by_shared = shared // (shared_bytes + RESERVED_SHARED_BYTES)
    return warps * min(most_blocks, most_warps // warps, by_registers, by_shared)
