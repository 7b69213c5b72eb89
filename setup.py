"""Builds the native libraries; metadata is in pyproject.toml.

_C_cpu is always built. _C_cuda is built when csrc/cuda has sources, this PyTorch has CUDA, a compiler is
found and EFFNET_FAST_SKIP_CUDA is not 1. Both use PyTorch's stable ABI and Python's limited API: one file
serves every PyTorch from 2.11 and every Python from 3.10.
"""

import os
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension

ROOT = Path(__file__).parent
TORCH_TARGET_VERSION = "0x020b000000000000"  # 2.11, the oldest PyTorch that the libraries load in
DEFINES = [
    ("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION),
    ("TORCH_STABLE_ONLY", None),
    ("Py_LIMITED_API", "0x030A0000"),
]
# GCC 12 warns of its own AVX-512 intrinsics (an operand that is undefined on purpose).
CXX_FLAGS = ["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-Wno-ignored-attributes",
             "-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # fmt: skip


def sources(folder: str, *patterns: str) -> list[str]:
    return sorted(
        str(p.relative_to(ROOT)) for pattern in patterns for p in (ROOT / "csrc" / folder).glob(pattern)
    )


def headers() -> list[str]:
    """A change in any of them rebuilds the libraries."""
    return sorted(
        str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".inl", ".cuh")
    )


def extensions() -> list:
    shared = {"define_macros": DEFINES, "py_limited_api": True, "depends": headers()}
    cpu = CppExtension(
        "effnet_fast._C_cpu", sources("cpu", "*.cpp"), extra_compile_args={"cxx": CXX_FLAGS}, **shared
    )
    cuda_sources = sources("cuda", "*.cu")
    if not cuda_sources or not CUDA_HOME or os.environ.get("EFFNET_FAST_SKIP_CUDA") == "1":
        print(f"effnet_fast: building _C_cpu only ({CUDA_HOME = }, {len(cuda_sources)} CUDA sources)")
        return [cpu]
    cuda = CUDAExtension(
        "effnet_fast._C_cuda",
        cuda_sources,
        extra_compile_args={"cxx": CXX_FLAGS, "nvcc": ["-std=c++20", "-O3", "-lineinfo"]},
        **shared,
    )
    return [cpu, cuda]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
