import io
import statistics

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

import effnet_fast
from benchmarks import latency_command
from benchmarks.cases import Case
from benchmarks.commands import main
from benchmarks.results import Results, load
from benchmarks.rows import latency_columns
from benchmarks.runner import Job, Settings
from effnet_fast.measure import describe

SETTINGS = Settings(rounds=3, min_seconds=0.0, threads=1)


def test_the_distribution_is_that_of_single_calls():
    generator = torch.Generator().manual_seed(0)
    seconds = torch.rand(999, generator=generator, dtype=torch.float64).tolist()
    columns = latency_columns(seconds)
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    expected = {"p20_ms": hundredths[19], "median_ms": hundredths[49], "p80_ms": hundredths[79]}
    expected["p99_ms"] = hundredths[98]
    assert columns == pytest.approx({name: 1e3 * value for name, value in expected.items()}, abs=1e-6)


def test_a_latency_run_over_fakes(fake_peers, tmp_path, b0):
    """One call in twenty of the engine is slow: the median does not show it, p99 does."""
    job = Job(Case("efficientnet_b0", 32, 1, "float32", 0.1), ("eager-nhwc", "engine"))
    fresh = Results("latency", describe(threads=1), SETTINGS.record(), "python -m benchmarks latency")

    def start(name):
        peer = fake_peers(name)
        if name == "engine":
            peer.sample = lambda min_seconds: [0.05] * 19 + [0.5]
        return peer

    console = Console(file=io.StringIO(), width=160)
    path = tmp_path / "latency.json"
    latency_command.run_latency(console, path, [job], fresh, device="cpu", start_peer=start)
    rows = {row["peer"]: row for row in load(path, kind="latency").rows}
    assert rows["engine"]["median_ms"] == 50.0
    assert rows["engine"]["p99_ms"] == 500.0
    assert rows["engine"]["calls"] == 60
    assert rows["eager-nhwc"]["p99_ms"] == 200.0
    parts = [rows["engine"][f"host_{part}_us"] for part in ("program", "around")]
    assert rows["engine"]["host_us"] == pytest.approx(sum(parts), abs=0.05)
    engine = effnet_fast.InferenceEngine(b0, batch_size=1, image_size=32)
    assert rows["engine"]["host_operators"] == len(engine.plan.layers)
    text = console.file.getvalue()
    assert "4.00x" in text  # eager's median over the engine's
    assert "host overhead of a call, kernels excluded" in text


def test_wrong_options_are_usage_errors(tmp_path):
    for arguments, words in (
        (["latency", "--peers", "tvm"], "'tvm' is not known"),
        (["latency", "--model", "resnet50"], "resnet50"),
        (["memory", "--batch", "0"], "--batch: 0 is not allowed"),
    ):
        done = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path)])
        assert done.exit_code == 2
        assert words in done.output
