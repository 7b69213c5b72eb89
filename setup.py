"""Builds the native libraries; metadata is in pyproject.toml.

_C_cpu is always built. _C_cuda is built when this PyTorch has CUDA and a compiler of the same major version
is found: in $CUDA_HOME, as nvcc on PATH, or in wheels (see requirements/build.txt). EFFNET_FAST_SKIP_CUDA=1
leaves it out. Its architectures are those in $TORCH_CUDA_ARCH_LIST and those of visible GPUs; where there are
neither, 8.0 and 9.0, with PTX for later ones.

Both use PyTorch's stable ABI and Python's limited API: one file serves every PyTorch from 2.11 and every
Python from 3.10.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import torch
from setuptools import setup

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
# No -lineinfo, which triples the library; for a profiler or a sanitizer: NVCC_APPEND_FLAGS=-lineinfo.
NVCC_FLAGS = ["-std=c++20", "-O3", "-Xcompiler=-fvisibility=hidden"]
SHIPPED_ARCHITECTURES = "8.0;9.0+PTX"


def nvidia_wheels(cuda: str) -> list[Path]:
    """Folders in which wheels put a toolkit for version `cuda`, for example site-packages/nvidia/cu13."""
    spec = importlib.util.find_spec("nvidia")
    return [Path(path) / f"cu{cuda}" for path in (spec.submodule_search_locations if spec else [])]


def toolkit() -> tuple[Path | None, str]:
    """The root of the CUDA toolkit to compile with, or None and what is missing."""
    if not torch.version.cuda:
        return None, f"PyTorch {torch.__version__} has no CUDA"
    wanted = torch.version.cuda.split(".")[0]
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    compilers = [Path(home) / "bin/nvcc"] if home else []
    compilers += [Path(found)] if (found := shutil.which("nvcc")) else []
    compilers += [root / "bin/nvcc" for root in nvidia_wheels(wanted)]
    seen = []
    for nvcc in compilers:
        if not nvcc.exists():
            continue
        # nvcc itself says where it is: what is on PATH may be a script that calls it.
        said = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True
        ).stderr
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        top, release = re.search(r"^#\$ TOP=(.+)$", said, re.M), re.search(r"release (\d+)\.\d+", version)
        if top and release and release[1] == wanted:
            return Path(top[1].strip()).resolve(), ""
        seen.append(f"{nvcc} is {release[0] if release else 'no compiler'}")
    found = f" ({'; '.join(seen)})" if seen else ""
    return None, f"a CUDA {wanted} compiler (nvcc on PATH, CUDA_HOME, or its wheels){found}"


def runtime_library(root: Path) -> tuple[Path, str]:
    """Folder and name of the CUDA runtime to link. PyTorch loads it before us, so no path is recorded."""
    name = f"libcudart.so.{torch.version.cuda.split('.')[0]}"
    folders = [root / "lib64", root / "lib", root / "targets/x86_64-linux/lib"]
    folders += [wheel / "lib" for wheel in nvidia_wheels(torch.version.cuda.split(".")[0])]
    return next((folder for folder in folders if (folder / name).exists()), folders[0]), name


def architectures() -> str:
    """For PyTorch's own TORCH_CUDA_ARCH_LIST."""
    named = [name for name in re.split(r"[; ]", os.environ.get("TORCH_CUDA_ARCH_LIST", "")) if name]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        native = "{}.{}".format(*torch.cuda.get_device_capability(i))
        if not any(name.split("+")[0] == native for name in named):
            named.append(native)
    return ";".join(named) or SHIPPED_ARCHITECTURES


def sources(folder: str, *patterns: str) -> list[str]:
    return sorted(
        str(p.relative_to(ROOT)) for pattern in patterns for p in (ROOT / "csrc" / folder).glob(pattern)
    )


def headers(folder: str) -> list[str]:
    """A change in any of them rebuilds the library of `folder`."""
    return sources("common", "*.h") + sources(folder, "*.h", "*.inl", "*.cuh")


CUDA_ROOT, MISSING = toolkit()
if os.environ.get("EFFNET_FAST_SKIP_CUDA") == "1":
    CUDA_ROOT, MISSING = None, "EFFNET_FAST_SKIP_CUDA is 1"
if CUDA_ROOT:
    os.environ["CUDA_HOME"] = str(CUDA_ROOT)  # read when cpp_extension is imported, which guesses otherwise
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures()
from torch.utils.cpp_extension import BuildExtension, CppExtension  # noqa: E402


def extensions() -> list:
    shared = {"define_macros": DEFINES, "py_limited_api": True}
    cpu = CppExtension(
        "effnet_fast._C_cpu",
        sources("cpu", "*.cpp"),
        depends=headers("cpu"),
        extra_compile_args={"cxx": CXX_FLAGS},
        **shared,
    )
    if not CUDA_ROOT:
        print(f"effnet_fast: the GPU kernels in C++ are not built; missing: {MISSING}")
        return [cpu]
    print(f"effnet_fast: building for {os.environ['TORCH_CUDA_ARCH_LIST']} with {CUDA_ROOT}")
    folder, runtime = runtime_library(CUDA_ROOT)
    # Not a CUDAExtension: that links -lcudart, and PyTorch's wheels only have the name with a version.
    cuda = CppExtension(
        "effnet_fast._C_cuda",
        sources("cuda", "*.cpp", "*.cu"),
        depends=headers("cuda"),
        include_dirs=[str(CUDA_ROOT / "include")],
        libraries=["torch_cuda"],
        extra_compile_args={"cxx": CXX_FLAGS, "nvcc": NVCC_FLAGS},
        extra_link_args=[f"-L{folder}", f"-l:{runtime}"],
        **{**shared, "define_macros": [*DEFINES, ("USE_CUDA", None)]},
    )
    return [cpu, cuda]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
