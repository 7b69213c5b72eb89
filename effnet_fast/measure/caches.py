"""Sizes of a CPU's caches, from sysfs."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["CPU_CACHES", "cache_sizes"]

CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cache_sizes(caches: Path = CPU_CACHES) -> dict[int, int]:
    """{level: bytes} of the data caches that a sysfs cache folder describes; empty where there is none."""
    sizes: dict[int, int] = {}
    for index in sorted(caches.glob("index*")):
        try:
            level = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and match:
            sizes[level] = int(match[1]) * _UNITS[match[2]]
    return sizes
