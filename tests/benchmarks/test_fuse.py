"""`benchmarks fuse`: the list, the gate, the tables and targets, and the README's support matrix."""

from __future__ import annotations

import io

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from rich.console import Console
from torch import nn

import effnet_fast
from benchmarks import commands, fuse, fuse_blocks, fuse_models, fuse_tables, readme
from benchmarks.commands import main
from benchmarks.contest import Job, rows_text
from benchmarks.fuse import FuseCase, FuseRunner
from benchmarks.fuse_models import BY_NAME, EFFICIENTNET, MODELS, FuseModel, parse_models
from benchmarks.progress import Reporter
from benchmarks.results import Results, load, save
from benchmarks.runner import Settings

SETTINGS = Settings(rounds=3, min_seconds=0.0, budget_seconds=5.0)
# A stem, a head, blocks with and without squeeze-excite, two activations; a second's work.
SMALL = FuseModel("timm", "lcnet_035", "LCNet", 64)


@pytest.fixture
def small(monkeypatch) -> FuseModel:
    """The only model of the list."""
    monkeypatch.setattr(fuse_models, "MODELS", (SMALL,))
    monkeypatch.setitem(BY_NAME, SMALL.name, SMALL)
    return SMALL


def reporter(title) -> Reporter:
    return Reporter(Console(file=io.StringIO()), title=title, text=rows_text)


def run(case: FuseCase, peers=tuple(fuse.PEERS)) -> dict[str, dict]:
    results = Results("fuse", {}, {}, "")
    FuseRunner(SETTINGS, reporter(fuse.case_title)).run([Job(case, peers)], results, lambda: None)
    return {row["peer"]: row for row in results.rows}


def test_the_list_is_24_models_that_their_libraries_have():
    assert len(MODELS) == len(BY_NAME) == 24
    known = {
        "timm": timm.list_models(),
        "torchvision": torchvision.models.list_models(),
        "efficientnet_pytorch": efficientnet_pytorch.model.VALID_MODELS,
    }
    for model in MODELS:
        assert model.model in known[model.library]
        assert model.image_size <= 240
    assert sum(model.family == EFFICIENTNET for model in MODELS) == 13
    assert len({model.family for model in MODELS}) == 9


def test_models_are_chosen_by_either_name():
    assert parse_models(()) == list(MODELS)
    assert [model.name for model in parse_models(("efficientnet_b0",))] == [
        "timm efficientnet_b0",
        "torchvision efficientnet_b0",
    ]
    assert [model.name for model in parse_models(("torchvision efficientnet_b0",))] == [
        "torchvision efficientnet_b0"
    ]
    with pytest.raises(ValueError, match="'resnet50' is not in the list"):
        parse_models(("resnet50",))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_everybody_is_judged_and_timed(small, dtype):
    rows = run(FuseCase(small.name, 2, dtype))
    assert {peer: row["status"] for peer, row in rows.items()} == dict.fromkeys(fuse.PEERS, "ok")
    assert all(0 <= row["error_usage"] <= 1 for row in rows.values())
    assert all(row["rounds"] == 3 for row in rows.values())
    fused = rows["fused"]
    assert fused["modules_fused"] == 15
    assert fused["modules_left_alone"] == 0
    assert 0 < fused["fused_bytes_per_image"] < fused["eager_bytes_per_image"]


def test_a_wrong_fused_model_has_no_time(small, monkeypatch):
    real = effnet_fast.fuse

    def wrong(model: nn.Module) -> nn.Module:
        fused = real(model)
        fused.get_submodule("blocks.2.0.bn1").running_mean += 0.01
        return fused

    monkeypatch.setattr(effnet_fast, "fuse", wrong)
    row = run(FuseCase(small.name, 1, "float32"), ("eager", "fused"))["fused"]
    assert row["status"] == "FAIL"
    assert "median_ms" not in row


def test_weights_are_those_of_a_trained_network(small):
    fuse_models.prepared.cache_clear()
    model = fuse_models.prepared(small)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(not torch.equal(norm.running_var, torch.ones_like(norm.running_var)) for norm in norms)
    assert {norm.momentum for norm in norms} == {0.1}
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, 64, 64))
    assert logits.isfinite().all()
    assert 1e-3 < logits.std() < 1e3
    assert not any(module.training for module in model.modules())


def row(
    library: str, model: str, dtype: str, peer: str, ms: float, *, family: str = "x", spread: float = 0.0
):
    return {
        "case": f"{library} {model}/224/8/{dtype}", "library": library, "model": model, "family": family,
        "image_size": 224, "batch": 8, "dtype": dtype, "peer": peer, "label": fuse.PEERS[peer],
        "group": "ours" if peer == "fused" else "eager", "status": "ok", "reason": "", "median_ms": ms,
        "p20_ms": ms * (1 - spread), "p80_ms": ms * (1 + spread), "spread": 2 * spread, "rounds": 7,
        "images_per_second": 8000 / ms, "error_usage": 0.25,
        **({"modules_fused": 18, "modules_left_alone": 2} if peer == "fused" else {}),
    }  # fmt: skip


def results_of(*rows) -> Results:
    environment = {
        "cpu": "Some CPU", "isa": "avx2", "threads": 2, "libraries": {"torch": "2.11"}, "date": "2000-01-01",
        "commit": "0123456",
    }  # fmt: skip
    return Results("fuse", environment, {}, "python -m benchmarks fuse", list(rows))


def contest(model: str, dtype: str, eager: float, nhwc: float, fused: float, **options) -> list[dict]:
    times = {"eager": eager, "eager-nhwc": nhwc, "fused": fused}
    return [row("timm", model, dtype, peer, ms, **options) for peer, ms in times.items()]


def test_targets_are_met_missed_or_open():
    fast = contest("b0", "float32", 20.0, 16.0, 10.0, family=EFFICIENTNET)
    slow = contest("es", "float32", 14.0, 12.0, 10.0, family=EFFICIENTNET)
    met = fuse_tables.target_lines(results_of(*fast))
    assert [line.split()[0] for line in met] == ["met", "met"]
    assert "least timm b0 f32 2.00x" in met[0]
    missed = fuse_tables.target_lines(results_of(*fast, *slow))
    assert missed[1].startswith("missed EfficientNets at least 1.5x")
    assert "timm es f32 1.40x" in missed[1]
    assert "b0" not in missed[1]
    failed = [dict(r, status="FAIL") if r["peer"] == "fused" else r for r in fast]
    assert [line.split()[0] for line in fuse_tables.target_lines(results_of(*failed))] == ["open", "open"]


@pytest.mark.parametrize(("spread", "verdict"), [(0.01, "missed"), (0.06, "met")])
def test_slower_within_the_spread_is_not_slower(spread, verdict):
    """10 % slower: outside of two spreads of 1 %, inside of two of 6 %."""
    rows = contest("m", "float32", 10.0, 10.0, 11.0, spread=spread)
    assert fuse_tables.target_lines(results_of(*rows))[0].split()[0] == verdict


def test_the_tables():
    results = results_of(
        *contest("b0", "float32", 20.0, 16.0, 10.0, spread=0.2),
        *contest("b0", "bfloat16", 30.0, 32.0, 10.0),
        *contest("b1", "float32", 30.0, 24.0, 10.0),
    )
    lines = fuse_tables.markdown(results).splitlines()
    assert lines[2] == "| timm `b0` | 224 | 18 (+2) | 0.25 | **2.00x** | 1.60x | 0.25 | **3.00x** | 3.20x |"
    assert lines[3] == "| timm `b1` | 224 | 18 (+2) | 0.25 | **3.00x** | 2.40x | - | - | - |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "Some CPU (avx2), 2 threads" in lines[-1]
    assert "medians of 7 alternating rounds" in lines[-1]
    console = Console(file=io.StringIO(), width=160)
    console.print(fuse_tables.fuse_table(results))
    text = console.file.getvalue()
    assert "400.0 ±20%" in text
    assert "1.60x" in text


def test_the_matrix_of_the_readme_comes_from_committed_files(tmp_path):
    assert readme.committed_fuse(tmp_path) == readme.NO_FUSE
    results = results_of(*contest("b0", "float32", 20.0, 16.0, 10.0))
    save(results, tmp_path / "cpu-a" / "fuse.json")
    save(results_of(*contest("b1", "float32", 1.0, 1.0, 1.0)), tmp_path / "local" / "fuse.json")
    assert readme.committed_fuse(tmp_path) == fuse_tables.markdown(results)
    with pytest.raises(readme.ResultError, match="needs exactly one line"):
        readme.update_fuse("no markers", "")


def test_the_matrix_of_this_readme_is_that_of_the_committed_files():
    text = commands.README.read_text(encoding="utf-8")
    assert readme.update_fuse(text, readme.committed_fuse(commands.RESULTS)) == text


def test_the_command_writes_resumes_and_shows(small, tmp_path):
    options = ["fuse", "--batch", "1", "--rounds", "3", "--min-seconds", "0", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    results = load(tmp_path / "fuse.json", kind="fuse")
    assert [found["peer"] for found in results.rows] == list(fuse.PEERS) * 2
    assert results.settings["allocator"] == "keeps freed memory"
    assert "no model slower than eager" in done.output
    again = CliRunner().invoke(main, [*options, "--resume"])
    assert "2 of 2 cases are in" in again.output
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "fuse.json")])
    assert shown.exit_code == 0, shown.output
    assert "lcnet_035" in shown.output


def test_the_command_fails_where_a_fused_model_does(small, tmp_path, monkeypatch):
    def refuse(model):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(effnet_fast, "fuse", refuse)
    options = ["fuse", "--batch", "1", "--rounds", "3", "--min-seconds", "0", "--dtype", "float32"]
    done = CliRunner().invoke(main, [*options, "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "RuntimeError: no kernel" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--model", "resnet50"], "resnet50"), (["--dtype", "int8"], "'int8' is not known")],
)
def test_wrong_options_are_refused(arguments, words):
    done = CliRunner().invoke(main, ["fuse", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_blocks_are_the_distinct_ones_with_the_modules_of_the_network(small):
    cases = fuse_blocks.block_cases([small], 2, ["float32"])
    assert sum(case.count for case in cases) == 15
    assert len({case.shape for case in cases}) == len(cases) < 15
    stem = cases[0]
    assert (stem.path, stem.size) == ("conv_stem", (64, 64))
    assert stem.shape.startswith("stem_conv: 3x64x64 > 3x3/2 ")


@pytest.mark.parametrize("path", ["conv_stem", "blocks.1.0", "blocks.5.1"])
def test_a_block_is_judged_and_timed(small, path):
    case = next(
        case for case in fuse_blocks.block_cases([small], 2, ["bfloat16", "float32"]) if case.path == path
    )
    results = Results("fuse-blocks", {}, {}, "")
    runner = fuse_blocks.FusedBlockRunner(SETTINGS, reporter(fuse_blocks.case_title))
    runner.run([Job(case, tuple(fuse_blocks.PEERS))], results, lambda: None)
    assert [found["status"] for found in results.rows] == ["ok", "ok"]
    assert all(found["error_usage"] <= 1 for found in results.rows)


def test_the_table_of_blocks_begins_with_the_one_that_loses(small):
    rows = []
    for model, ms in (("gains", 1.0), ("loses", 5.0)):
        rows += [
            dict(found, case=f"{model}/0", block="0", shape="s", blocks=1)
            for found in contest(model, "float32", 2.0, 2.0, ms, spread=0.01)
            if found["peer"] != "eager-nhwc"
        ]
    results = results_of(*rows)
    console = Console(file=io.StringIO(), width=160)
    console.print(fuse_tables.blocks_table(results))
    text = console.file.getvalue()
    assert text.index("0.40x") < text.index("2.00x")
    assert fuse_tables.blocks_notes(results) == ["1 of 2 blocks lose by more than the spread of their rounds"]
