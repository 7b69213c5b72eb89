"""Cache sizes as sysfs writes them."""

from __future__ import annotations

from effnet_fast.measure.caches import cache_sizes


def write(folder, index, level, kind, size):
    folder = folder / f"index{index}"
    folder.mkdir()
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (folder / name).write_text(f"{text}\n")


def test_data_caches_by_level(tmp_path):
    write(tmp_path, 0, 1, "Data", "48K")
    write(tmp_path, 1, 1, "Instruction", "32K")
    write(tmp_path, 2, 2, "Unified", "1024K")
    write(tmp_path, 3, 3, "Unified", "32M")
    assert cache_sizes(tmp_path) == {1: 48 << 10, 2: 1 << 20, 3: 32 << 20}


def test_what_cannot_be_read_is_left_out(tmp_path):
    write(tmp_path, 0, 2, "Unified", "a lot")
    write(tmp_path, 1, "third", "Unified", "32M")
    (tmp_path / "index2").mkdir()
    assert cache_sizes(tmp_path) == {}
    assert cache_sizes(tmp_path / "nowhere") == {}
