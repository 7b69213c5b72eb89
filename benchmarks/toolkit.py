"""The CUDA toolkit as setup.py finds it: one place knows where compilers lie."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent


def setup_facts() -> dict[str, object]:
    """The globals of setup.py (CUDA_ROOT, MISSING, NVCC_FLAGS, ...), without setting anything up."""
    silent = contextlib.redirect_stdout(io.StringIO())
    with silent, mock.patch("setuptools.setup"), mock.patch.dict(os.environ):
        return runpy.run_path(str(ROOT / "setup.py"))
