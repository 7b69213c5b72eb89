"""Offsets past 2**31 elements, and that 32-bit ones would be found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATORS = ["pointwise_conv", "depthwise_conv_pool", "dense_conv", "head_pool", "stem_conv"]


def _run(op: str, root: Path) -> subprocess.CompletedProcess:
    # A wrong offset is a crash of the process.
    return subprocess.run(
        [sys.executable, "-m", "tests.triton.last_program", op],
        cwd=root, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS)
def test_the_last_program_of_a_large_tensor_is_right(op) -> None:
    done = _run(op, ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("op", OPERATORS)
def test_offsets_of_32_bits_are_found(op, tmp_path) -> None:
    for package in ("effnet_fast", "tests/triton"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    (tmp_path / "tests/__init__.py").touch()
    kernel = tmp_path / f"effnet_fast/triton_kernels/{op.removesuffix('_pool') if 'depth' in op else op}.py"
    correct = kernel.read_text()
    assert ".to(tl.int64)" in correct
    kernel.write_text(correct.replace(".to(tl.int64)", ""))
    assert _run(op, tmp_path).returncode != 0
