"""Cache sizes from sysfs, and the documented guess where it does not say."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.inference.limits import CpuLimits


def write_caches(folder, *caches):
    for i, (level, kind, size) in enumerate(caches):
        index = folder / f"index{i}"
        index.mkdir()
        (index / "level").write_text(f"{level}\n")
        (index / "type").write_text(f"{kind}\n")
        (index / "size").write_text(f"{size}\n")
    return folder


def test_limits_from_sysfs(tmp_path):
    caches = write_caches(
        tmp_path,
        (1, "Data", "48K"),
        (1, "Instruction", "32K"),
        (2, "Unified", "1024K"),
        (3, "Unified", "32M"),
    )
    limits = CpuLimits.detect(caches, threads=2)
    assert limits == CpuLimits(l2_bytes=1 << 20, l3_bytes=32 << 20, threads=2)
    assert limits.budget_bytes == 8 << 20


def test_limits_without_a_last_level(tmp_path):
    limits = CpuLimits.detect(write_caches(tmp_path, (2, "Unified", "2M")), threads=4)
    assert limits == CpuLimits(l2_bytes=2 << 20, l3_bytes=0, threads=4)
    assert limits.budget_bytes == 8 << 20


@pytest.mark.parametrize("size", ["", "unknown", "12 potatoes"])
def test_limits_fall_back_where_sysfs_is_silent(tmp_path, size):
    caches = write_caches(tmp_path, (2, "Unified", size)) if size else tmp_path / "absent"
    assert CpuLimits.detect(caches, threads=1) == CpuLimits(l2_bytes=1 << 20, l3_bytes=8 << 20, threads=1)


def test_limits_of_this_machine():
    limits = CpuLimits.detect()
    assert limits.threads == torch.get_num_threads()
    assert limits.budget_bytes >= limits.l2_bytes >= 64 << 10


@pytest.mark.parametrize("bad", [{"threads": 0}, {"l2_bytes": -1}, {"l3_bytes": 1.5}])
def test_limits_refuse_nonsense(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must be an integer"):
        CpuLimits(**{"l2_bytes": 1, "l3_bytes": 1, "threads": 1, **bad})
