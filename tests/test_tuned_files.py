"""Files of measurements: each kind's own errors, and a file that is replaced as a whole."""

from __future__ import annotations

import json
import os

import pytest

from effnet_fast.tuned_files import TunedFiles


class Refused(ValueError):
    pass


FILES = TunedFiles("a/1", "toys", "-toys.json", Refused)


def test_a_folder_that_is_given_wins_over_the_package(tmp_path):
    given, packaged = tmp_path / "given", tmp_path / "packaged"
    for folder in (given, packaged):
        folder.mkdir()
    assert FILES.find("NVIDIA H200", packaged, str(given)) is None
    name = FILES.name("NVIDIA H200")
    assert name == "nvidia-h200-toys.json"
    for folder in (packaged, given):
        FILES.save(folder / name, "NVIDIA H200", {}, [])
        assert FILES.find("NVIDIA H200", packaged, str(given)) == folder / name
    assert FILES.find("NVIDIA H200", packaged, None) == packaged / name
    with pytest.raises(Refused, match="EFFNET_FAST_TUNED_DIR=nowhere: there is no such folder"):
        FILES.find("NVIDIA H200", packaged, "nowhere")


def test_an_entry_is_a_line_and_what_was_there_stays_until_all_is_written(tmp_path, monkeypatch):
    path = tmp_path / "toys.json"
    FILES.save(path, "NVIDIA H200", {"torch": "2"}, [{"a": 1}, {"b": [2]}])
    assert FILES.load(path, "NVIDIA H200") == [{"a": 1}, {"b": [2]}]
    assert path.read_text().splitlines()[1:-1] == ['{"a": 1},', '{"b": [2]}']
    assert json.loads(path.read_text())["versions"] == {"torch": "2"}

    def full(*given) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        FILES.save(path, "NVIDIA H200", {}, [])
    assert FILES.load(path, "NVIDIA H200") == [{"a": 1}, {"b": [2]}]
    with pytest.raises(Refused, match=r"toys\.json: measured on 'NVIDIA H200', this is 'NVIDIA A100'"):
        FILES.load(path, "NVIDIA A100")
