"""The choice of blocks: readable without Triton, valid for every layer, tuned files trusted or refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.resources import keys
from effnet_fast.triton_kernels import configs, tune
from effnet_fast.triton_kernels.configs import pointwise_conv, tuned
from effnet_fast.triton_kernels.device import ARCHITECTURES, Device

DEVICE = ARCHITECTURES[90]
OTHER = Device("NVIDIA Other 8000", "cuda", 90, 100, 200 << 10)
NEAR = pointwise_conv.Problem(1, 4096, 64, 96, 2, False, False)
CONFIG = pointwise_conv.heuristic(NEAR, DEVICE)
DIFFERENT = next(c for c in pointwise_conv.candidates(NEAR, DEVICE) if c != CONFIG)


def test_configurations_need_no_triton():
    code = "import effnet_fast.triton_kernels.configs, sys; assert 'triton' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", ARCHITECTURES.values(), ids=lambda device: device.name)
def test_candidates_of_every_layer_begin_with_the_heuristic(device):
    calls = [call for storage in ("float16", "float32") for call, _ in keys.family_calls(storage)]
    tasks = tune.tasks_of(calls, device)
    assert {task.problem.operator for task in tasks} == set(configs.MODULES) - {"dense_conv"}
    for task in tasks:
        module = configs.MODULES[task.problem.operator]
        assert module.candidates(task.problem, device)[0] == module.heuristic(task.problem, device)
        assert len(set(task.candidates)) == len(task.candidates)
        # Fewer leave nothing to find, more cost their user minutes a problem.
        assert 4 <= len(task.candidates) <= 32, task.problem


def _file(folder, at: str = "", value: object = None) -> None:
    """The file of `DEVICE`; what lies `at` a dotted path in it replaced."""
    path = folder / tuned.file_name(DEVICE)
    tuned.save(path, DEVICE, {"triton": "0"}, [tuned.Entry(NEAR, DIFFERENT, 12.5)])
    if at:
        document = json.loads(path.read_text())
        *steps, last = at.split(".")
        target = document
        for step in steps:
            target = target[int(step) if step.isdigit() else step]
        target[last] = value
        path.write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(tuned.DIRECTORY_VARIABLE, str(tmp_path))
    tuned.forget()
    yield tmp_path
    tuned.forget()


def _problem(**changes) -> pointwise_conv.Problem:
    return pointwise_conv.Problem(**vars(NEAR) | changes)


def test_a_measured_problem_gets_its_configuration(folder):
    _file(folder)
    assert configs.choose(NEAR, DEVICE) == DIFFERENT
    assert tuned.load(folder / "sm-90.json", DEVICE) == [tuned.Entry(NEAR, DIFFERENT, 12.5)]


def test_the_nearest_in_log_space_wins(folder):
    far = _problem(rows=NEAR.rows // 4)
    entries = [tuned.Entry(far, CONFIG, 1.0), tuned.Entry(NEAR, DIFFERENT, 1.0)]
    tuned.save(folder / "sm-90.json", DEVICE, {}, entries)
    # 2048 is as far from 4096 as from 1024 in log space, and much nearer to 1024 otherwise.
    assert tuned.lookup(_problem(rows=2100), DEVICE) == DIFFERENT
    assert tuned.lookup(_problem(rows=2000), DEVICE) == CONFIG


def test_beyond_the_farthest_the_heuristic_decides(folder):
    _file(folder)
    assert tuned.lookup(_problem(rows=4 * NEAR.rows), DEVICE) == DIFFERENT
    assert tuned.lookup(_problem(rows=4 * NEAR.rows + 1), DEVICE) is None
    assert tuned.lookup(_problem(rows=2 * NEAR.rows, in_channels=129), DEVICE) is None


@pytest.mark.parametrize("change", [{"itemsize": 4}, {"gate": True}, {"residual": True}])
def test_another_kind_is_not_asked(folder, change):
    _file(folder)
    assert tuned.lookup(_problem(**change), DEVICE) is None


def test_another_device_is_not_asked(folder):
    _file(folder)
    assert tuned.lookup(NEAR, OTHER) is None
    assert tuned.file_name(OTHER) == "nvidia-other-8000.json"


def test_the_folder_of_the_environment_wins(folder, monkeypatch, tmp_path_factory):
    packaged = tmp_path_factory.mktemp("packaged")
    monkeypatch.setattr(tuned, "PACKAGED", packaged)
    tuned.save(packaged / "sm-90.json", DEVICE, {}, [tuned.Entry(NEAR, CONFIG, 1.0)])
    assert tuned.lookup(NEAR, DEVICE) == CONFIG
    tuned.forget()
    _file(folder)
    assert tuned.lookup(NEAR, DEVICE) == DIFFERENT


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        ("schema", "other/1", "schema is 'other/1'"),
        ("device", "NVIDIA Other", "measured on 'NVIDIA Other', this is 'sm_90'"),
        ("entries", None, "it has no entries"),
        ("entries", [3], "operator is None"),
        ("entries.0.operator", "conv", "operator is 'conv'"),
        ("entries.0.problem.depth", 3, "pointwise_conv.Problem has"),
        ("entries.0.config", {"rows": 64}, "pointwise_conv.Config has ['rows'], this version expects"),
        ("entries.0.config.rows", "64", "rows = '64', expected int"),
        ("entries.0.config.rows", -64, "rows = -64, expected int"),
        ("entries.0.problem.gate", 1, "gate = 1, expected bool"),
        ("entries.0.microseconds", "fast", "microseconds = 'fast'"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_an_error_that_names_it(folder, at, value, reason):
    _file(folder, at, value)
    with pytest.raises(tuned.TunedError) as caught:
        configs.choose(NEAR, DEVICE)
    assert str(folder / "sm-90.json") in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_damaged_file_is_an_error_that_names_it(folder, text):
    (folder / "sm-90.json").write_text(text)
    with pytest.raises(tuned.TunedError, match=r"sm-90\.json"):
        configs.choose(NEAR, DEVICE)


def test_a_missing_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(tuned.DIRECTORY_VARIABLE, str(tmp_path / "absent"))
    tuned.forget()
    with pytest.raises(tuned.TunedError, match="absent: there is no such folder"):
        configs.choose(NEAR, DEVICE)
    tuned.forget()


def test_committed_files_load():
    # Whatever GPUs have been measured: a file of the package that this version cannot read stops its users.
    for path in tuned.PACKAGED.glob("*.json"):
        name = json.loads(path.read_text())["device"]
        device = Device(name, "cuda", 90, 132, 227 << 10)
        assert path.name == tuned.file_name(device)
        assert tuned.load(path, device)
