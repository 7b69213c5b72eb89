"""What a machine can run, asked in a process of its own: a broken driver hangs or ends that one alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.toolkit import setup_facts

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120.0


@dataclass(frozen=True)
class Machine:
    """The first GPU and the tools around it.

    Attributes:
        reason: why no step can run here; empty when they can.
        toolkit: root of the CUDA toolkit that setup.py compiles with; empty when there is none.
        missing: what there is none of, as setup.py says it.
    """

    reason: str = ""
    gpu: str = ""
    capability: str = ""
    torch: str = ""
    driver: str = ""
    toolkit: str = ""
    missing: str = ""

    @property
    def architecture(self) -> str:
        return "sm_" + self.capability.replace(".", "")

    def tool(self, name: str) -> str | None:
        """The path of a program of CUDA's, on PATH or in the toolkit."""
        beside = Path(self.toolkit, "bin", name) if self.toolkit else None
        return shutil.which(name) or (str(beside) if beside and beside.exists() else None)


def find() -> Machine:
    """This machine; never raises."""
    command = [sys.executable, "-m", "benchmarks.gpu.machine"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        asked = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        return Machine(**json.loads(asked.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Machine(reason=f"PyTorch has not found a GPU within {SECONDS:.0f} s")
    except (json.JSONDecodeError, IndexError, TypeError):
        said = (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        return Machine(reason=f"PyTorch cannot be asked for a GPU: {said}")


def _here() -> Machine:
    import torch

    if torch.version.cuda is None:
        return Machine(reason=f"PyTorch {torch.__version__} has no CUDA")
    if not torch.cuda.is_available():
        return Machine(reason="no GPU is visible")
    properties = torch.cuda.get_device_properties(0)
    facts = setup_facts()
    return Machine(
        gpu=properties.name,
        capability=f"{properties.major}.{properties.minor}",
        torch=torch.__version__,
        driver=str(torch._C._cuda_getDriverVersion()),
        toolkit=str(facts["CUDA_ROOT"] or ""),
        missing=facts["MISSING"],
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_here())))  # noqa: T201
