from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_VARIABLES = ("CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST", "EFFNET_FAST_SKIP_CUDA")


def _setup_says(**variables: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    environment |= {name: str(value) for name, value in variables.items()}
    command = [sys.executable, "setup.py", "--name"]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return re.search(r"^effnet_fast: (.+)$", run.stdout, re.MULTILINE)[1]


@pytest.fixture(scope="session")
def setup_says():
    """Of environment variables: the line that setup.py then writes about CUDA."""
    return _setup_says


@pytest.fixture(scope="session")
def toolkit() -> Path:
    """The CUDA toolkit that setup.py finds here."""
    return Path(re.fullmatch(r"building for \S+ with (.+)", _setup_says())[1])
