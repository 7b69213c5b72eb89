"""effnet-fast models and effnet-fast scale, as people call them."""

from __future__ import annotations

import json

import pytest
import rich.console
from click.testing import CliRunner

from effnet_fast import cli, scale_command
from effnet_fast.models import list_models, model_config
from effnet_fast.scaling import count, phi_for_budget, scaled_model_config


def invoke(*arguments: object):
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert "Traceback" not in done.output
    if done.exception is not None:
        assert isinstance(done.exception, SystemExit), done.exception
    return done


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│ \n").split("│")]


def test_models_show_scaling_and_cost():
    done = invoke("models", "*")
    assert done.exit_code == 0
    rows = {row[0]: row for row in map(cells, done.stdout.splitlines()) if row[0] in list_models()}
    assert list(rows) == list_models()
    assert rows["efficientnet_b7"][1:7] == ["7", "3.1", "2", "600", "66.35 M", "37.75 G"]
    assert rows["efficientnet_l2"][1:6] == ["", "5.3", "4.3", "800", "480.31 M"]
    assert rows["tf_efficientnet_lite4"][1:5] == ["4", "1.8", "1.4", "300"]
    assert rows["efficientnetv2_s"][1:6] == ["", "", "", "384", "21.46 M"]
    assert rows["mobilenetv2_140"][1:5] == ["", "1", "1.4", "224"]
    assert rows["efficientnet_b0"][7:] == ["94.1", "27.5", "14.1"]


def test_models_as_json():
    done = invoke("models", "efficientnet_b?", "--json", "--dtype", "float32")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["name"] for record in records] == list_models("efficientnet_b?")
    for phi, record in enumerate(records):
        counts = count(model_config(record["name"]))
        assert record["phi"] == phi
        assert record["macs"] == counts.macs
        assert record["parameters"] == counts.parameters
        assert record["resolution"] == counts.resolution
        assert record["dtype"] == "float32"
        halves = counts.activation_bytes
        assert 1.99 < record["activation_bytes"]["eager"] / halves["eager"] <= 2
    assert records[4]["width"] == 1.4


def test_scale_by_phi_shows_the_network():
    done = invoke("scale", "--phi", 7, "--gamma", 1.1)
    assert done.exit_code == 0
    assert "depth x 3.583, width x 1.949, 436 pixels (436.5 before rounding)" in done.stdout
    rows = [cells(line) for line in done.stdout.splitlines() if line.startswith("│")]
    # stage, kind, kernel, expand, input, channels, layers
    assert ["2", "mbconv", "5", "6", "109", "80", "8"] in rows
    assert rows[0][-3:] == ["436", "64", "1"]
    assert len(rows) == 9


@pytest.mark.parametrize(
    ("option", "text", "name", "value"),
    [
        ("--macs", "1.5G", "macs", 1.5e9),
        ("--macs", "39E7", "macs", 3.9e8),
        ("--macs", "1.5g", "macs", 1.5e9),
        ("--params", "20M", "params", 2e7),
    ],
)
def test_scale_to_a_budget(option, text, name, value):
    done = invoke("scale", option, text, "--base", "mobilenetv2", "--num-classes", 10, "--json")
    assert done.exit_code == 0
    record = json.loads(done.stdout)
    found = phi_for_budget(**{name: value}, base="mobilenetv2", num_classes=10)
    assert record["phi"] == found.phi
    assert record["budget"] == {"unit": found.unit, "asked": value, "achieved": found.achieved}
    assert record["channels"] == [row.channels for row in found.config.stages]
    assert record["layers"] == [row.layers for row in found.config.stages]
    assert record["resolution"] == found.config.resolution
    assert len(record["points"]) == len(found.points)
    assert record[{"macs": "macs", "params": "parameters"}[name]] == found.achieved


def test_scale_to_memory_shows_every_point():
    options = ("--memory-mb", 30, "--batch-size", 2, "--dtype", "bfloat16", "--device", "cpu")
    done = invoke("scale", *options)
    assert done.exit_code == 0
    assert "of 30 MB" in done.stdout
    record = json.loads(invoke("scale", *options, "--json").stdout)
    assert record["budget"]["achieved"] <= 30
    for point in record["points"]:
        assert f"{point['phi']:.3f}" in done.stdout
        assert f"{point['cost']:.3f}" in done.stdout


def test_deviations():
    done = invoke("scale", "--deviations")
    assert done.exit_code == 0
    assert "595.8" in done.stdout


def test_deviations_as_json():
    rows = json.loads(invoke("scale", "--deviations", "--json").stdout)
    assert [row["variant"] for row in rows] == [*(f"b{index}" for index in range(9)), "l2"]
    assert rows[7]["used"] == {"width": 2.0, "depth": 3.1, "resolution": 600, "dropout": 0.5}
    assert round(rows[7]["phi_width"], 2) == 7.27
    assert rows[-1]["formula"] is None


@pytest.mark.parametrize("arguments", [("models",), ("scale", "--deviations"), ("scale", "--memory-mb", 30)])
def test_a_narrow_terminal_cuts_no_number(arguments, monkeypatch):
    wide = invoke(*arguments)
    real = rich.console.Console
    monkeypatch.setattr(
        scale_command,
        "Console",
        lambda **options: real(**options | {"width": 60}, force_terminal=True, color_system=None),
    )
    narrow = invoke(*arguments)
    assert "…" not in narrow.stdout
    assert [line for line in narrow.stdout.splitlines() if "│" in line] == [
        line for line in wide.stdout.splitlines() if "│" in line
    ]


def test_the_range_of_phi_is_chosen():
    done = invoke("scale", "--macs", "5G", "--phi-range", 0, 1)
    assert done.exit_code == 2
    assert "the largest network that is tried, phi 1 at 256 pixels, has 859,853,760" in done.stderr
    options = ("--memory-mb", 4.5, "--phi-range", -10, -7, "--device", "cpu", "--json")
    assert -10 < json.loads(invoke("scale", *options).stdout)["phi"] < -7


def test_the_network_is_that_of_the_library():
    record = json.loads(invoke("scale", "--phi", -1.5, "--json").stdout)
    config = scaled_model_config(-1.5)
    assert record["name"] == config.name == "efficientnet_phi-1.5"
    assert record["parameters"] == count(config).parameters
    assert record["dropout"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scale"], "choose one of --phi, --macs, --params"),
        (["scale", "--phi", "1", "--macs", "1G"], "choose one of"),
        (["scale", "--phi", "1", "--deviations"], "choose one of"),
        (["scale", "--macs", "many"], "no number such as 2e9, 390M or 1.5G"),
        (["scale", "--macs", "1.2.3"], "no number such as"),
        (["scale", "--macs", "-5"], "no number such as"),
        (["scale", "--macs", "10"], "macs=10 is impossible: the smallest network"),
        (["scale", "--phi", "nan"], "phi must be a finite number"),
        (["scale", "--phi", "-20"], "network's stride of 32"),
        (["scale", "--phi", "1", "--alpha", "-1"], "alpha must be"),
        (["scale", "--phi", "1", "--base-resolution", "16"], "base_resolution must be"),
        (["scale", "--phi", "1", "--base", "resnet"], "resnet"),
        (["scale", "--phi", "1", "--device", "nowhere"], "'nowhere' is none of cpu, cuda, cuda:0"),
        (["scale", "--latency-ms", "5", "--device", "meta"], "'meta' is none of cpu, cuda"),
        (["models", "resnet*"], "no model matches 'resnet*'"),
        (["models", "--dtype", "int8"], "int8"),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(arguments, words):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""
