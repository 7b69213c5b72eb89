"""The suites: their cases, their peers, their targets, and a whole one over fakes."""

import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from benchmarks import bars, suites, tables
from benchmarks.bars import plot_bars
from benchmarks.cases import describe_model
from benchmarks.commands import main
from benchmarks.models_command import run_models, run_suite
from benchmarks.peers import PEERS
from benchmarks.results import Results, load
from benchmarks.rows import new_row
from benchmarks.runner import Job, Settings
from benchmarks.suites import CPU, SUITES, Target, batches_of
from benchmarks.targets import target_lines

RUNTIMES = ("onnx", "onnxscript", "onnxruntime", "openvino")
FAST = {"rounds": 3, "min_seconds": 0.0, "threads": 1}


@pytest.fixture(autouse=True)
def all_packages(monkeypatch):
    """Fakes need no package, and the gate before them looks for one."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: SimpleNamespace() if name in RUNTIMES else found(name, *rest),
    )


def test_large_networks_get_the_smaller_batch():
    batches = {model: batches_of(model) for model in CPU.models}
    assert batches == {
        "efficientnet_b0": (1, 16),
        "efficientnet_b1": (1, 16),
        "efficientnet_b2": (1, 16),
        "efficientnet_b3": (1, 16),
        "efficientnet_b4": (1, 4),
        "efficientnetv2_s": (1, 4),
        "efficientnet_lite0": (1, 16),
        "mobilenetv2_100": (1, 16),
    }
    assert batches_of("efficientnet_b7") == (1, 4)  # above the bound even so


def test_every_case_and_every_target_of_the_suite_is_measured():
    cases = CPU.cases()
    assert len(cases) == 2 * (2 * len(CPU.models) + 1)
    assert len({case.key for case in cases}) == len(cases)
    assert all(case.image_size == describe_model(case.model)[0] and not case.note for case in cases)
    measured = {(case.model, case.batch, case.dtype) for case in cases}
    for target in CPU.targets:
        groups = {PEERS[name].group for name in CPU.peers_of(target.model)}
        assert target.group in groups | {tables.STOCK}
        batches = target.batches or batches_of(target.model)
        wanted = {(target.model, batch, dtype) for batch in batches for dtype in CPU.dtypes}
        assert wanted <= measured, target
    everybody = {name for model in CPU.models for name in CPU.peers_of(model)}
    assert len(everybody) <= tables.MOST_COLUMNS  # a column for each


def test_a_part_of_a_suite_is_chosen_by_name():
    assert [case.key for case in CPU.cases(["efficientnet_b2"], ["bfloat16"])] == [
        f"efficientnet_b2/260/{batch}/bfloat16" for batch in (1, 4, 16)
    ]
    with pytest.raises(ValueError, match="--model: resnet50 is not in the suite; allowed: efficientnet_b0"):
        CPU.cases(["resnet50"])
    with pytest.raises(ValueError, match="--dtype: float16 is not in the suite; allowed: float32, bfloat16"):
        CPU.cases([], ["float16"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "gpu"], "'gpu' is not"),
        (["--suite", "cpu", "--phi", "0"], "--suite and --phi exclude each other"),
        (["--suite", "cpu", "--peers", "engine"], "--suite and --peers exclude each other"),
        (["--suite", "cpu", "--full"], "--suite and --full exclude each other"),
        (["--suite", "cpu", "--model", "resnet50"], "resnet50 is not in the suite"),
        (["--suite", "cpu", "--dtype", "int8"], "'int8' is not known"),
    ],
)
def test_a_suite_is_not_half_a_suite(arguments, words):
    done = CliRunner().invoke(main, ["models", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def ratios(model: str, batch: int, dtype: str, *, runtime: float | None, compiled: float = 9.0) -> list[dict]:
    """Rows of one case whose engine is so many times as fast as the others; None: has no time."""
    (case,) = (case for case in CPU.cases() if (case.model, case.batch, case.dtype) == (model, batch, dtype))
    speeds = {"engine": 100.0, "onnxruntime": 1.0, "compiled": 100 / compiled}
    speeds["openvino-latency"] = None if runtime is None else 100 / runtime
    if runtime is None:
        speeds["onnxruntime"] = None
    return [
        new_row(case, name) | ({"status": "ok", "images_per_second": value} if value else {})
        for name, value in speeds.items()
    ]


def lines(rows: list[dict], *targets: Target, monkeypatch) -> list[str]:
    monkeypatch.setitem(SUITES, "cpu", replace(CPU, targets=targets))
    return target_lines(Results("models", {}, {"suite": "cpu"}, "", rows))


B0 = "efficientnet_b0"


def test_a_target_is_met_where_the_fastest_of_its_group_is_beaten_in_every_dtype(monkeypatch):
    rows = ratios(B0, 16, "float32", runtime=1.6) + ratios(B0, 16, "bfloat16", runtime=1.5)
    target = Target(B0, (16,), "runtime", 1.5)
    assert lines(rows, target, monkeypatch=monkeypatch) == [
        "met    B0 @224, batch 16: 1.50x of the fastest runtime wanted; f32 1.60x, bf16 1.50x"
    ]
    rows[-1]["images_per_second"] *= 1.02  # that runtime, in one dtype
    assert lines(rows, target, monkeypatch=monkeypatch)[0].startswith("missed B0 @224")


def test_a_target_of_every_peer_and_every_batch_is_held_to_the_worst(monkeypatch):
    rows = []
    for batch in (1, 4):
        for dtype in CPU.dtypes:
            compiled = 0.97 if (batch, dtype) == (4, "float32") else 1.2
            rows += ratios("efficientnetv2_s", batch, dtype, runtime=1.1, compiled=compiled)
    (line,) = lines(rows, Target("efficientnetv2_s", (), "stock", 1.0), monkeypatch=monkeypatch)
    assert line == (
        "missed efficientnetv2_s @384, every batch: 1.00x of every peer wanted; "
        "batch 1 f32 1.10x, batch 1 bf16 1.10x, batch 4 f32 0.97x, batch 4 bf16 1.10x"
    )


def test_what_was_not_measured_is_neither_met_nor_missed(monkeypatch):
    target = Target(B0, (16,), "runtime", 1.5)
    assert lines([], target, monkeypatch=monkeypatch) == [
        "open   B0 @224, batch 16: 1.50x of the fastest runtime wanted; f32 -, bf16 -"
    ]
    half = ratios(B0, 16, "float32", runtime=2.0)
    assert lines(half, target, monkeypatch=monkeypatch)[0].startswith("open ")
    without = half + ratios(B0, 16, "bfloat16", runtime=None)
    assert lines(without, target, monkeypatch=monkeypatch)[0].endswith("; f32 2.00x, bf16 -")
    assert lines(without, target, monkeypatch=monkeypatch)[0].startswith("open ")
    one_batch = Target(B0, (), "runtime", 1.5)  # both dtypes of batch 16 alone
    both = half + ratios(B0, 16, "bfloat16", runtime=2.0)
    assert lines(both, one_batch, monkeypatch=monkeypatch)[0].startswith("open ")


def test_another_sweep_has_no_targets(monkeypatch):
    rows = ratios(B0, 16, "float32", runtime=1.6)
    assert target_lines(Results("models", {}, {"rounds": 5}, "", rows)) == []


def test_a_suite_is_measured_into_its_own_file_and_resumed(fake_peers, tmp_path, monkeypatch):
    models = (B0, "efficientnet_b4", "mobilenetv2_100")
    targets = tuple(target for target in CPU.targets if target.model in models)
    peers = ("compiled", "onnxruntime", "engine")
    small = replace(CPU, models=models, also=(), peers=peers, targets=targets)
    monkeypatch.setitem(suites.SUITES, "cpu", small)
    assert run_suite("cpu", [B0], None, FAST, resume=True, out=tmp_path, start_peer=fake_peers)
    results = load(tmp_path / "cpu.json", kind="models")
    assert {row["model"] for row in results.rows} == {B0}
    assert results.settings["suite"] == "cpu"
    assert results.settings["rounds"] == 3
    assert run_suite("cpu", [B0, models[-1]], None, FAST, resume=True, out=tmp_path, start_peer=fake_peers)
    prepared = [key for peer in fake_peers.started if peer.name == "engine" for key in peer.prepared]
    assert len(prepared) == len(set(prepared)) == 2 * 2 * 2  # nothing twice
    assert load(tmp_path / "cpu.json").command == "python -m benchmarks models --suite cpu"
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "cpu.json")])
    assert shown.exit_code == 0, shown.output
    # The fakes' engine takes 0.05 s, the runtime 0.125 s, the compiled peers 0.3 and 0.1 s.
    for line in (
        "met    B0 @224, batch 16: 1.50x of the fastest runtime wanted; f32 2.50x, bf16 2.50x",
        "met    B0 @224, batch 16: 2.10x of torch.compile as it comes wanted; f32 6.00x, bf16 6.00x",
        "missed B0 @224, batch 16: 2.10x of torch.compile with a tuned allocator wanted; f32 2.00x, bf16",
        "open   B4 @380, batch 4: 1.20x of the fastest runtime wanted; f32 -, bf16 -",
    ):
        assert line in shown.output
    for heading in ("compiled", "runtime", "best"):
        assert heading in shown.output
    with Image.open(tmp_path / "cpu.png") as picture:
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 10


@pytest.mark.parametrize("models", [1, 6])
def test_the_legend_fits_into_the_picture(models, tmp_path, monkeypatch):
    """Of every peer, however few cases there are, and so however narrow the picture is."""
    cases = [case for case in CPU.cases(CPU.models[:models], ["float32"]) if case.batch == 1]
    timed = {"status": "ok", "images_per_second": 100.0}
    rows = [new_row(case, peer) | timed for case in cases for peer in CPU.peers]
    found = []
    monkeypatch.setattr(bars, "write_picture", lambda figure, *rest: found.append(figure))
    assert plot_bars(Results("models", {}, {}, "", rows), tmp_path / "bars.png")
    (figure,) = found
    figure.draw_without_rendering()
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert figure.bbox.x0 <= extent.x0
    assert extent.x1 <= figure.bbox.x1
    assert len(legend.get_texts()) == len(CPU.peers)


def test_without_a_time_there_are_no_bars(tmp_path):
    rows = [row | {"status": "error"} for row in ratios(B0, 1, "float32", runtime=2.0)]
    assert not plot_bars(Results("models", {}, {}, "", rows), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_an_engine_that_fails_in_a_suite_fails_the_command(fake_peers, tmp_path):
    fake_peers.logits["engine"] = lambda exact: exact + 1
    (case, *_) = CPU.cases([B0], ["float32"])
    with (tmp_path / "log").open("w") as log:
        job = Job(case, ("onnxruntime", "engine"))
        settings = Settings(rounds=3, min_seconds=0.0, threads=1)
        path = tmp_path / "cpu.json"
        assert not run_models(Console(file=log), path, [job], settings, suite="cpu", start_peer=fake_peers)
