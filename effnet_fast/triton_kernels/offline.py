"""Launches compiled for a GPU that is not there, and what the machine code says about them.

Registers, spills, shared memory and the instructions chosen are decided by the compiler, so they can be
proven on any machine; how long a kernel takes cannot. The compiler, the assembler and the disassembler come
with Triton.
"""

from __future__ import annotations

import collections
import functools
import importlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from effnet_fast import native

from .device import Device
from .launch import Launch

__all__ = ["AMD", "Facts", "Key", "compile_key", "cuobjdump", "facts", "key_of", "versions"]

_TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.uint8: "*u8",
}

#: AMD's GPUs that Triton's wheel compiles for. LDS per workgroup: 64 KiB (CDNA 2 and 3 ISA references).
AMD = {
    "gfx90a": Device("gfx90a", "hip", 0, 104, 64 << 10),
    "gfx942": Device("gfx942", "hip", 0, 304, 64 << 10),
}

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]+)", re.MULTILINE)
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")


@dataclass(frozen=True)
class Key:
    """What makes two launches one compilation, and all that a compilation needs.

    Attributes:
        module: of :mod:`effnet_fast.triton_kernels`, where the kernel is defined.
        kernel: name of the function.
        arguments: type of each run-time argument, None for an absent tensor.
        constants: compile-time arguments.
        warps, stages: as in `Launch`.
    """

    module: str
    kernel: str
    arguments: tuple[tuple[str, str | None], ...]
    constants: tuple[tuple[str, Any], ...]
    warps: int
    stages: int

    def __str__(self) -> str:
        types = ",".join("-" if type_ is None else type_ for _, type_ in self.arguments)
        constants = ",".join(f"{name}={value}" for name, value in self.constants)
        return f"{self.kernel}({types};{constants})@{self.warps}x{self.stages}"

    def function(self) -> Any:
        """The function under ``triton.jit``."""
        return getattr(importlib.import_module(f"{__package__}.{self.module}"), self.kernel)

    def record(self) -> dict[str, Any]:
        """Plain values, for a file; `from_record` reads them."""
        return asdict(self) | {"arguments": dict(self.arguments), "constants": dict(self.constants)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Key:
        values = {name: record[name] for name in cls.__dataclass_fields__}
        return cls(**values | {name: tuple(values[name].items()) for name in ("arguments", "constants")})


@dataclass(frozen=True)
class Facts:
    """What the compiler made of a launch.

    Attributes:
        registers: of a thread.
        spilled_bytes: of a thread, in local memory; 0 unless registers ran out or an array is indexed at run
            time.
        shared_bytes: of a block.
        instructions: static, of the whole kernel.
        matrix: matrix instructions by mnemonic: HMMA, HGMMA, UTCHMMA (tcgen05), MFMA.
        tf32: whether any of them rounds float32 operands.
        wide_loads, wide_stores: accesses of global memory of 16 bytes a thread.
        loads, stores: accesses of global memory of any width.
        ffma: float32 multiply-adds.
        mufu: special functions by name: MUFU.TANH, MUFU.EX2, ...
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: int
    matrix: Mapping[str, int]
    tf32: bool
    loads: int
    wide_loads: int
    stores: int
    wide_stores: int
    ffma: int
    mufu: Mapping[str, int]


def key_of(launch: Launch) -> Key:
    """The compile key of `launch`."""
    function = launch.kernel.fn  # what triton.jit wraps, whether to compile or to interpret it
    return Key(
        function.__module__.rpartition(".")[2],
        function.__name__,
        tuple((name, _type_of(name, value)) for name, value in launch.arguments.items()),
        tuple(launch.constants.items()),
        launch.warps,
        launch.stages,
    )


def _type_of(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return _TYPES[value.dtype]
    if isinstance(value, int) and not isinstance(value, bool):
        # As Triton's launcher types them.
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    raise TypeError(f"argument {name} is {type(value).__name__}, expected a tensor, an int, a float or None")


def compile_key(key: Key, device: Device) -> Any:
    """`key` compiled for `device`, as Triton's own launcher would for tensors at multiples of 16 bytes.

    Raises:
        RuntimeError: in a process that interprets kernels; ValueError: an integer that Triton would
            specialise on, and compile once more for some of its values.
    """
    if native.INTERPRETS_TRITON:
        raise RuntimeError(
            "kernels are interpreted in this process (TRITON_INTERPRET=1), and interpreting and compiling do "
            "not mix: start another one without it"
        )
    kernel = key.function()
    names = kernel.arg_names
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list] = {}
    for name, type_ in key.arguments:
        at = (names.index(name),)
        signature[name] = type_ or "constexpr"
        if type_ is None:
            constants[at] = None
        elif type_.startswith("*"):
            attributes[at] = [["tt.divisibility", 16]]
        elif type_.startswith("i") and not kernel.params[at[0]].do_not_specialize:
            raise ValueError(f"{key.kernel}: {name} is not in do_not_specialize")
    for name, value in key.constants:
        signature[name], constants[(names.index(name),)] = "constexpr", value
    if device.platform == "hip":
        target = GPUTarget("hip", device.name, 64)
    else:
        target = GPUTarget("cuda", device.capability, 32)
    # A signature is read in the order of the function's parameters.
    ordered = {name: signature[name] for name in names}
    return triton.compile(
        ASTSource(kernel, ordered, constants, attributes),
        target=target,
        options=dict(num_warps=key.warps, num_stages=key.stages),
    )


def facts(compiled) -> Facts:
    """The facts of what `compile_key` returned."""
    if "cubin" in compiled.asm:
        return _nvidia_facts(compiled)
    return _amd_facts(compiled)


def _nvidia_facts(compiled) -> Facts:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        registers, stack = map(int, _RESOURCES.search(cuobjdump("-res-usage", file.name)).groups())
        names = _INSTRUCTION.findall(cuobjdump("-sass", file.name))
    count = collections.Counter(name.split(".")[0] for name in names)
    matrix = {name: n for name, n in sorted(count.items()) if name.endswith("MMA")}
    loads = [name for name in names if name.startswith("LDG")]  # LDGSTS, the asynchronous copy, too
    stores = [name for name in names if name.startswith("STG")]
    special = collections.Counter(".".join(name.split(".")[:2]) for name in names if name.startswith("MUFU"))
    return Facts(
        registers=registers,
        spilled_bytes=stack,
        shared_bytes=compiled.metadata.shared,
        instructions=len(names),
        matrix=matrix,
        tf32="tf32" in compiled.asm["ptx"] or any("TF32" in name for name in names),
        loads=len(loads),
        wide_loads=sum(".128" in name for name in loads),
        stores=len(stores),
        wide_stores=sum(".128" in name for name in stores),
        ffma=count["FFMA"] + 2 * count["FFMA2"],
        mufu=dict(sorted(special.items())),
    )


def _amd_facts(compiled) -> Facts:
    text = compiled.asm["amdgcn"]
    names = re.findall(r"^\s+([a-z]+_[a-z0-9_]+)", text, re.MULTILINE)

    def fact(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", text).group(1))

    def starting(*beginnings: str) -> list[str]:
        return [name for name in names if name.startswith(beginnings)]

    loads = starting("global_load", "buffer_load")
    stores = starting("global_store", "buffer_store")
    matrix = starting("v_mfma")
    special = collections.Counter(starting("v_exp", "v_rcp", "v_log", "v_sqrt", "v_rsq"))
    return Facts(
        registers=fact("vgpr_count"),
        spilled_bytes=4 * fact("vgpr_spill_count"),
        shared_bytes=compiled.metadata.shared,
        instructions=len(names),
        matrix={"MFMA": len(matrix)} if matrix else {},
        tf32=any("xf32" in name for name in matrix),
        loads=len(loads),
        wide_loads=sum(name.endswith("x4") for name in loads),
        stores=len(stores),
        wide_stores=sum(name.endswith("x4") for name in stores),
        ffma=len(starting("v_fma_f32", "v_fmac_f32", "v_mad_f32", "v_mac_f32"))
        + 2 * len(starting("v_pk_fma_f32")),
        mufu=dict(sorted(special.items())),
    )


def cuobjdump(option: str, path: str | Path) -> str:
    """What NVIDIA's tool of that name says about a file of machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout


@functools.cache
def versions() -> dict[str, str]:
    """What decides on the machine code: Triton with its compiler, and NVIDIA's assemblers."""
    folder = Path(triton.__file__).parent / "backends/nvidia/bin"
    found = {"triton": triton.__version__}
    for tool in ("ptxas", "ptxas-blackwell"):
        text = subprocess.run([folder / tool, "--version"], capture_output=True, text=True, check=True).stdout
        found[tool] = re.search(r"V([\d.]+)", text).group(1)
    return found
