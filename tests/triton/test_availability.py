"""A machine without Triton, or with one that fails to import, loses this backend and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import torch
from click.testing import CliRunner
import effnet_fast
from effnet_fast import backends, cli, native, ops

kind = backends.device_type("triton")
reason = backends.supports("pointwise_conv", "triton", device_type=kind, dtype=torch.float32)
print("reason:", reason)
try:
    backends.resolve("pointwise_conv", "triton", device_type=kind, dtype=torch.float32)
except RuntimeError as error:
    print("refusal:", error)
x, weight = torch.randn(1, 8, 4, 4), torch.randn(8, 8, 1, 1)
before = ops.pointwise_conv(x, weight, None, "silu")
print("auto:", before.shape[1], native.available("cpu"))
info = CliRunner().invoke(cli.main, ["info"])
print("info:", info.exit_code, info.output)
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ImportError('libcuda is too old\\nsecond line')", "ImportError: libcuda is too old"),
        ("raise OSError('no such symbol')", "OSError: no such symbol"),
        ("__version__ = '0'", "ModuleNotFoundError: No module named 'triton.language'"),
    ],
)
@pytest.mark.parametrize("interpret", ["0", "1"])
def test_a_broken_triton_costs_its_backend_alone(tmp_path, source, expected, interpret):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(source)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env=os.environ | {"PYTHONPATH": paths, "TRITON_INTERPRET": interpret},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    sentence = f"triton cannot be imported: {expected}"
    assert lines[0] == f"reason: {sentence}"
    assert lines[1].startswith("refusal: effnet_fast.pointwise_conv: ")
    assert lines[1].endswith(sentence)
    assert lines[2] == "auto: 8 True"
    assert lines[3].startswith("info: 0 ")
    assert sentence in " ".join(done.stdout.split())
