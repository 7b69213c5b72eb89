"""Torch-free files of csrc/cuda as Python modules, for tests without a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pybind11

HERE = Path(__file__).parent
CUDA = HERE.parents[1] / "csrc" / "cuda"


def compiled(name: str, folder: Path, includes: Sequence[Path] = ()) -> ModuleType:
    """bind_<name>.cpp with csrc/cuda/<name>.cpp, built in `folder` and imported."""
    target = folder / f"effnet_fast_{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    folders = [pybind11.get_include(), sysconfig.get_paths()["include"], *includes]
    # -Bsymbolic: what the module defines itself is not looked for in the libraries that PyTorch has loaded.
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-Wall"]
    command += ["-Wextra", "-Werror"]
    command += [f"-isystem{folder}" for folder in folders]
    sources = [str(HERE / f"bind_{name}.cpp"), str(CUDA / f"{name}.cpp")]
    subprocess.run([*command, *sources, "-o", str(target)], check=True)
    spec = importlib.util.spec_from_file_location(f"effnet_fast_{name}", target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
