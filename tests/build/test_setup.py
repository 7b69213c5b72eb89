"""How setup.py finds a CUDA compiler, and what it says when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_wheels(tmp_path) -> Path:
    """A PYTHONPATH on which the wheels' folder, nvidia, is an empty package."""
    (tmp_path / "empty" / "nvidia").mkdir(parents=True)
    (tmp_path / "empty" / "nvidia" / "__init__.py").touch()
    return tmp_path / "empty"


def test_architectures(setup_says) -> None:
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    native = ["{}.{}".format(*torch.cuda.get_device_capability(i)) for i in range(visible)]
    assert f"building for {native[0] if native else '8.0;9.0+PTX'} " in setup_says()
    asked = setup_says(TORCH_CUDA_ARCH_LIST="8.6 8.9+PTX")
    assert "building for " + ";".join(["8.6", "8.9+PTX", *native]) + " " in asked


def test_a_script_on_path_that_calls_the_compiler(setup_says, toolkit, no_wheels, tmp_path) -> None:
    script(tmp_path / "bin" / "nvcc", f'exec {toolkit}/bin/nvcc "$@"')
    assert setup_says(PATH=f"{tmp_path}/bin:/usr/bin:/bin", PYTHONPATH=no_wheels).endswith(f"with {toolkit}")


def test_a_compiler_in_wheels(setup_says, toolkit, tmp_path) -> None:
    wheel = tmp_path / "nvidia" / f"cu{torch.version.cuda.split('.')[0]}"
    script(wheel / "bin" / "nvcc", f'{toolkit}/bin/nvcc "$@" 2>&1 | sed "s|TOP=.*|TOP={wheel}|" >&2; '
           f'{toolkit}/bin/nvcc "$@" 2>/dev/null')  # fmt: skip
    assert setup_says(PATH="/usr/bin:/bin", PYTHONPATH=tmp_path).endswith(f"with {wheel}")


def test_no_compiler(setup_says, no_wheels) -> None:
    line = setup_says(PATH="/usr/bin:/bin", PYTHONPATH=no_wheels)
    assert line.startswith("the GPU kernels in C++ are not built; missing: a CUDA ")


def test_a_compiler_for_another_cuda(setup_says, no_wheels, tmp_path) -> None:
    nvcc = script(tmp_path / "bin" / "nvcc", 'echo "Cuda compilation tools, release 11.8, V11.8.89"')
    line = setup_says(PATH="/usr/bin:/bin", PYTHONPATH=no_wheels, CUDA_HOME=tmp_path)
    assert "the GPU kernels in C++ are not built" in line
    assert f"({nvcc} is release 11.8)" in line


def test_it_can_be_left_out(setup_says) -> None:
    assert "missing: EFFNET_FAST_SKIP_CUDA is 1" in setup_says(EFFNET_FAST_SKIP_CUDA="1")
