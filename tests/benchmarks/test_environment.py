import getpass
import platform
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from effnet_fast.measure import describe, device_slug, differences, environment, peak_allocated_bytes


def test_the_record_names_versions_and_threads_but_no_machine_user_or_path():
    record = describe(threads=2)
    assert record["threads"] == 2
    assert record["libraries"]["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    text = repr(record)
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    for name in (platform.node(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(name)}\b", text)


def test_the_folder_of_a_device_is_a_plain_name():
    assert re.fullmatch(
        r"[a-z0-9]+(-[a-z0-9]+)*-\d+c-(avx512amx|avx512bf16|avx512|avx2|portable)", device_slug()
    )


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("AMD EPYC", "amd-epyc-4c-avx2"),
        ("AMD EPYC 9B14 96-Core Processor", "amd-epyc-9b14-4c-avx2"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c-4c-avx2"),
    ],
)
def test_marketing_words_are_left_out_of_it(monkeypatch, name, slug):
    monkeypatch.setattr(environment, "cpu_model", lambda: name)
    monkeypatch.setattr(environment, "usable_cores", lambda: 4)
    monkeypatch.setattr(environment, "cpu_isa", lambda: "avx2")
    assert device_slug() == slug


def test_what_makes_times_incomparable_is_named(monkeypatch):
    one = describe(threads=1)
    assert differences(one, dict(one, date="2000-01-01")) == []
    monkeypatch.setenv("EFFNET_FAST_CPU_ISA", "avx2")
    found = differences(one, describe(threads=2))
    assert [line.split(":")[0] for line in found] == ["threads", "overrides"]


def test_a_record_without_a_driver_is_of_the_same_machine_where_there_is_none():
    one = describe(threads=1)
    older = {name: value for name, value in one.items() if name not in ("driver", "clocks")}
    assert differences(older, one) == differences(one, older) == []
    assert [line.split(":")[0] for line in differences(older, dict(one, driver="580.65"))] == ["driver"]


def test_clocks_of_a_cpu_are_what_the_system_tells(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "GOVERNOR", tmp_path / "governor")
    assert "governor" not in describe()["clocks"]
    (tmp_path / "governor").write_text("performance\n")
    assert describe()["clocks"]["governor"] == "performance"
    assert describe()["clocks"].get("mhz", 1000) >= 100


class Smi:
    """nvidia-smi, which answers in the order in which it is asked."""

    def __init__(self, answers: str):
        self.answers, self.commands = answers, []

    def __call__(self, command, **options):
        self.commands.append(command)
        if not self.answers:
            raise FileNotFoundError("nvidia-smi")
        return subprocess.CompletedProcess(command, 0, stdout=self.answers)


@pytest.mark.parametrize("answers", ["580.65.06, 1755 MHz, 1980 MHz, 3201 MHz, 700.00 W\n", ""])
def test_driver_and_clocks_of_a_gpu(monkeypatch, answers):
    smi = Smi(answers)
    monkeypatch.setattr(environment.subprocess, "run", smi)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="1-2"))
    found = environment.gpu_state()
    assert smi.commands[0][-1] == "--id=GPU-1-2"
    if not answers:
        assert found == {}
        return
    assert found == {
        "driver": "580.65.06",
        "sm": "1755 MHz",
        "sm_max": "1980 MHz",
        "memory": "3201 MHz",
        "power_limit": "700.00 W",
    }
    assert "1-2" not in repr(found)


def test_no_commit_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.commit() == ""


def test_peak_memory_is_what_is_held_at_once():
    mib = 1 << 20

    def call():
        first = torch.empty(4 * mib, dtype=torch.uint8)
        second = torch.empty(2 * mib, dtype=torch.uint8)
        del first
        third = torch.empty(3 * mib, dtype=torch.uint8)
        return second, third

    call()
    assert peak_allocated_bytes(call) == pytest.approx(6 * mib, rel=0.01)
