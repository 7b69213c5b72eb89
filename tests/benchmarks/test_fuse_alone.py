"""`benchmarks fuse --alone`: the list, the gate, what the rule decides, and whether the times agree."""

from __future__ import annotations

import io

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from torch import nn

from benchmarks import fuse_alone, fuse_alone_tables, fuse_blocks
from benchmarks.commands import main
from benchmarks.contest import Job, rows_text
from benchmarks.fuse_alone import FUSE, LAYERS, LEAVE, LayerCase, LayerRunner, layer_cases
from benchmarks.progress import Reporter
from benchmarks.results import Results, load
from benchmarks.runner import Settings

SETTINGS = Settings(rounds=3, min_seconds=0.0, budget_seconds=5.0)
# Of each kind one, small: a tenth of a second for all.
SMALL = (
    fuse_alone._squeeze_excite(24, 2, 6),
    fuse_alone._se_module(32, 6),
    fuse_alone._convolution(3, 8, 72, 6),
    fuse_alone._convolution(3, 8, 16, 7, stride=2),
    fuse_alone._convolution(1, 8, 72, 6),
)


def run(cases: list[LayerCase]) -> list[dict]:
    results = Results("fuse-alone", {}, {}, "")
    reporter = Reporter(Console(file=io.StringIO()), title=fuse_alone.case_title, text=rows_text)
    jobs = [Job(case, tuple(fuse_alone.PEERS)) for case in cases]
    LayerRunner(SETTINGS, reporter).run(jobs, results, lambda: None)
    return results.rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_everybody_is_judged_and_timed_also_where_the_rule_leaves_it(dtype):
    cases = layer_cases(SMALL, 5, [dtype])
    assert {case.rule for case in cases} == {FUSE, LEAVE}
    rows = run(cases)
    assert [row["status"] for row in rows] == ["ok"] * 4 * len(SMALL)
    assert all(row["error_usage"] <= 1 and row["p20_ms"] <= row["median_ms"] <= row["p80_ms"] for row in rows)
    assert len({row["case"] for row in rows}) == len(cases) == 2 * len(SMALL)


@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
def test_a_wrong_fused_form_fails_and_has_no_time(layer, monkeypatch):
    bind = fuse_blocks.bind

    def wrong(*arguments):
        program = bind(*arguments)
        return lambda x: 1.001 * program(x)

    monkeypatch.setattr(fuse_blocks, "bind", wrong)
    eager, fused = run(layer_cases([layer], 2, ["float32"])[:1])
    assert (eager["status"], fused["status"]) == ("ok", "FAIL")
    assert "median_ms" in eager
    assert "median_ms" not in fused


def test_both_get_the_maps_of_the_case_and_calibrated_weights(monkeypatch):
    given = []
    bind = fuse_blocks.bind

    def watched(*arguments):
        program = bind(*arguments)
        return lambda x: given.append(x) or program(x)

    monkeypatch.setattr(fuse_blocks, "bind", watched)
    by_layout = {case.layout: case for case in layer_cases(SMALL[2:3], 5, ["float32"])}
    for layout, strides in {"NCHW": (288, 36, 6, 1), "NHWC": (288, 1, 48, 8)}.items():
        contest = fuse_blocks.FusedBlockContest(by_layout[layout], 0)
        contest.modules.register_forward_pre_hook(lambda _, args: given.append(args[0]))
        given.clear()
        for peer in fuse_alone.PEERS:
            y = contest.prepare(peer, {})()
        assert len(given) == 4
        assert {(x.shape, x.stride()) for x in given} == {((5, 8, 6, 6), strides)}
        assert 0.3 < y.std() < 3
        norms = [module for module in contest.modules.modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(norms) == 1
        assert not torch.equal(norms[0].running_var, torch.ones(72))


def test_the_decisions_are_those_of_the_rule(monkeypatch):
    decided = {layer.name: fuse_alone.decision(layer) for layer in LAYERS}
    assert len(decided) == len(LAYERS)
    assert decided["squeeze-excite, 144 @56"] == decided["SE-ResNet's, 256 @56"] == LEAVE
    assert decided["3x3, 64 > 64 @56"] == decided["1x1, 64 > 256 @56"] == FUSE
    assert decided["3x3, 64 > 128 @56, stride 2"] == decided["1x1, 256 > 512 @56, stride 2"] == LEAVE
    asked = []

    def narrow(block, device_type):
        asked.append(device_type)
        return "too wide" if block.out_channels == 16 else ""

    monkeypatch.setattr(fuse_alone, "slower", narrow)
    rules = [case.rule for case in layer_cases(SMALL, 1, ["float32"]) if case.layout == "NCHW"]
    assert rules == [FUSE, FUSE, FUSE, LEAVE, FUSE]
    assert set(asked) == {"cpu"}
    assert all(case.record()["rule"] == case.rule for case in layer_cases(SMALL, 1, ["float32"]))


def layer_rows(name: str, rule: str, fused: dict[str, float | None], spread: float = 0.01) -> list[dict]:
    """10 ms eager; None: fused has failed."""
    rows = []
    for layout, fused_ms in fused.items():
        for peer, ms in (("eager", 10.0), ("fused", fused_ms)):
            row = {
                "case": f"{name}/8/float32/{layout}", "layer": name, "batch": 8, "dtype": "float32",
                "layout": layout, "rule": rule, "peer": peer, "label": peer, "status": "ok", "reason": "",
            }  # fmt: skip
            if ms is None:
                rows.append(row | {"status": "FAIL", "reason": "error is 3 times"})
            else:
                times = {"median_ms": ms, "p20_ms": ms * (1 - spread), "p80_ms": ms * (1 + spread)}
                rows.append(row | times)
    return rows


def results_of(*rows: dict) -> Results:
    return Results("fuse-alone", {"cpu": "Some CPU", "isa": "avx2", "threads": 2}, {}, "", list(rows))


@pytest.mark.parametrize(
    ("rule", "fused", "spread", "verdict", "marked"),
    [
        (FUSE, {"NCHW": 8.0, "NHWC": 10.0}, 0.01, "yes", 0),
        (FUSE, {"NCHW": 8.0, "NHWC": 11.0}, 0.01, "NO", 1),
        (FUSE, {"NCHW": 8.0, "NHWC": 11.0}, 0.06, "yes", 0),  # slower, within the spread
        (FUSE, {"NCHW": 8.0, "NHWC": None}, 0.01, "open", 0),
        (FUSE, {"NCHW": 12.0, "NHWC": None}, 0.01, "NO", 1),
        (LEAVE, {"NCHW": 12.0, "NHWC": 8.0}, 0.01, "yes", 1),  # one loss is enough, the gain is shown
        (LEAVE, {"NCHW": 9.0, "NHWC": 8.0}, 0.01, "NO", 2),
        (LEAVE, {"NCHW": 9.7, "NHWC": 10.2}, 0.05, "level", 0),
        (LEAVE, {"NCHW": None, "NHWC": 8.0}, 0.01, "open", 1),
    ],
)
def test_the_rule_agrees_where_it_fuses_what_loses_nowhere(rule, fused, spread, verdict, marked):
    results = results_of(*layer_rows("layer", rule, fused, spread))
    console = Console(file=io.StringIO(), width=160)
    console.print(fuse_alone_tables.alone_table(results))
    line = next(line for line in console.file.getvalue().splitlines() if line.strip().startswith("layer"))
    assert line.split()[-1] == verdict
    assert rule in line
    assert line.count("*") == marked
    notes = fuse_alone_tables.alone_notes(results)
    assert notes[-1] == f"1 layers, rule agrees: {verdict} 1; figures marked *: {marked}"
    named = [note for note in notes if note.startswith(f"the rule disagrees, layer: {rule}")]
    assert len(named) == (verdict == "NO")
    assert sum("error is 3 times" in note for note in notes) == (None in fused.values())


def test_the_table_has_a_line_for_each_layer_and_its_figures():
    results = results_of(
        *layer_rows("wide", LEAVE, {"NCHW": 12.5, "NHWC": 8.0}),
        *layer_rows("narrow", FUSE, {"NCHW": 5.0}),
    )
    console = Console(file=io.StringIO(), width=160)
    console.print(fuse_alone_tables.alone_table(results))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "wide 10.000 / 12.500 0.80x 10.000 / 8.000 1.25x* leave alone yes" in lines
    assert "narrow 10.000 / 5.000 2.00x - fuse yes" in lines


def test_the_command_writes_resumes_and_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(fuse_alone, "LAYERS", SMALL[2:4])
    options = ["fuse", "--alone", "--batch", "1", "--rounds", "3", "--min-seconds", "0"]
    done = CliRunner().invoke(main, [*options, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    results = load(tmp_path / "fuse-alone.json", kind="fuse-alone")
    assert results.command == "python -m benchmarks fuse --batch 1 --alone"
    assert len(results.rows) == 2 * 2 * 2 * 2
    assert "2 layers, rule agrees: " in done.output
    again = CliRunner().invoke(main, [*options, "--out", str(tmp_path), "--resume"])
    assert "8 of 8 cases are in" in again.output
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "fuse-alone.json")])
    assert shown.exit_code == 0, shown.output
    assert "3x3, 8 > 72 @6" in shown.output


@pytest.mark.parametrize("other", [["--blocks"], ["--model", "efficientnet_b0"]])
def test_what_has_a_list_of_its_own_takes_no_other(other):
    done = CliRunner().invoke(main, ["fuse", "--alone", *other])
    assert done.exit_code == 2
    assert "--alone takes neither --blocks nor --model" in done.output
