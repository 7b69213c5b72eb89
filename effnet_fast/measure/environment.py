"""What a measurement depends on, without what identifies a machine: never a host name, user or path."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

#: Libraries whose version can change a figure of the benchmarks.
LIBRARIES = ("torch", "torchvision", "timm", "triton", "numpy", "pillow")

#: Environment variables that change which kernels run or how threads behave; recorded where they are set.
OVERRIDES = (
    "EFFNET_FAST_BACKEND",
    "EFFNET_FAST_CPU_ISA",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "KMP_AFFINITY",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)

#: Entries that must be equal for two measurements to be of the same machine and software.
COMPARABLE_KEYS = (
    "device", "cpu", "cores", "threads", "isa", "gpu", "driver", "libraries", "overrides", "commit",
)  # fmt: skip

#: What nvidia-smi is asked of a GPU, and what its answers are called in a record.
GPU_QUERY = {
    "driver_version": "driver",
    "clocks.sm": "sm",
    "clocks.max.sm": "sm_max",
    "clocks.mem": "memory",
    "power.limit": "power_limit",
}
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def cpu_model() -> str:
    """The CPU's marketing name, e.g. "AMD EPYC"; the architecture where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def cpu_family() -> str:
    """E.g. "family 25 model 17": tells generations apart where a virtual machine cuts the name short."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = [re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model")]
    return f"family {found[0].group(1)} model {found[1].group(1)}" if all(found) else ""


def cpu_isa() -> str:
    """Widest instruction set that the CPU reports, in the kernels' words: avx512_amx, avx512_bf16, avx512,
    avx2 or portable.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return "portable"
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags:
        if {"avx512_bf16", "amx_tile", "amx_bf16"} <= flags:
            return "avx512_amx"
        return "avx512_bf16" if "avx512_bf16" in flags else "avx512"
    return "avx2" if {"avx2", "fma"} <= flags else "portable"


def usable_cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def gpu_name() -> str:
    """Name of the current CUDA device, or an empty string."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def gpu_state() -> dict[str, str]:
    """Driver, clocks and power limit of the current CUDA device from nvidia-smi; empty without it."""
    if not torch.cuda.is_available():
        return {}
    # By its UUID, which is not recorded: CUDA_VISIBLE_DEVICES renumbers GPUs, and nvidia-smi does not look.
    name = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid).removeprefix("GPU-")
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(GPU_QUERY)}",
        "--format=csv,noheader",
        f"--id=GPU-{name}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    answers = [answer.strip() for answer in done.stdout.strip().split(",")]
    return dict(zip(GPU_QUERY.values(), answers, strict=False))


def cpu_clocks() -> dict[str, object]:
    """Clock of the fastest core at this moment in MHz, and the governor, where the system tells them."""
    found: dict[str, object] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    if clocks := re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", text, re.MULTILINE):
        found["mhz"] = round(max(map(float, clocks)))
    with contextlib.suppress(OSError):
        found["governor"] = GOVERNOR.read_text().strip()
    return found


def commit() -> str:
    """Short commit of the checkout that this file lies in, with "+changes" for a dirty one; empty outside a
    checkout.
    """
    folder = Path(__file__).resolve().parent
    try:
        text = _git(folder, "rev-parse", "--short=10", "HEAD")
        # Result files are written into the checkout while it is measured; they do not change what is
        # measured.
        places = (":/", ":(exclude,top)benchmarks/results")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *places)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{text}+changes" if dirty else text


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


def library_versions() -> dict[str, str]:
    """Version of each of `LIBRARIES` that is installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__
    return versions


def device_slug(device: str = "cpu") -> str:
    """Folder name for results of this device, e.g. "amd-epyc-2c-avx512bf16"; for CUDA the GPU's name."""
    if device == "cuda":
        words = gpu_name() or "cuda"
    else:
        words = f"{cpu_model()} {usable_cores()}c {cpu_isa().replace('_', '')}"
    words = re.sub(r"\((r|tm)\)", "", words, flags=re.IGNORECASE)
    words = re.sub(r"\b(processor|cpu|\d+-core)\b|@.*?ghz", " ", words, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def load_per_core() -> float:
    """Processes that wanted to run in the last minute, for each core; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0] / usable_cores()
    except OSError:
        return 0.0


def describe(*, device: str = "cpu", threads: int | None = None) -> dict[str, object]:
    """The environment record of a result file. `threads` None = torch's current number."""
    clocks: dict[str, object] = dict(gpu_state()) if device == "cuda" else cpu_clocks()
    driver = clocks.pop("driver", "")
    return {
        "device": device,
        "cpu": " ".join(part for part in (cpu_model(), cpu_family()) if part),
        "cores": usable_cores(),
        "threads": torch.get_num_threads() if threads is None else threads,
        "isa": cpu_isa(),
        "gpu": gpu_name() if device == "cuda" else "",
        "driver": driver,
        "clocks": clocks,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": library_versions(),
        "overrides": {name: os.environ[name] for name in OVERRIDES if os.environ.get(name)},
        "commit": commit(),
        "load_per_core": round(load_per_core(), 2),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Sentences naming what differs between two environment records in a way that makes their times
    incomparable.
    """
    return [
        f"{key}: {one.get(key)!r} there, {other.get(key)!r} here"
        for key in COMPARABLE_KEYS
        if (one.get(key) or "")
        != (other.get(key) or "")  # an older record lacks what is empty in a newer one
    ]
