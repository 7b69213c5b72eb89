import io
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from benchmarks import contest, limits, operators
from benchmarks.commands import main
from benchmarks.contest import Job, rows_text
from benchmarks.layers import LayerCase, distinct_layers, images_of, layer_cases
from benchmarks.limits import Limits
from benchmarks.operator_tables import MOST_LINES, lines_of, notes, operators_table
from benchmarks.progress import Reporter
from benchmarks.results import Results, load
from benchmarks.runner import Settings
from benchmarks.unfused import GATES, Unfused
from effnet_fast.inference import fold, network_layers
from effnet_fast.measure import Peaks
from effnet_fast.models import create_model
from effnet_fast.ops import reference
from effnet_fast.testing import make_args

SETTINGS = Settings(rounds=3, min_seconds=0.0, budget_seconds=5.0)
SAME = (0, 0, 1, 1)
LIMITS = Limits(1e9, Peaks(fma_macs=1e9, dot_macs=2e9, silu=1e8))


@pytest.fixture(autouse=True)
def small_copy(monkeypatch):
    monkeypatch.setitem(limits.COPY_BYTES, "cpu", 1 << 20)


def run(jobs, dtype: str = "float32", **options) -> Results:
    results = Results("operators", {"cpu": "x", "gpu": ""}, {}, "")
    reporter = Reporter(Console(file=io.StringIO()), title=operators.case_title, text=rows_text)
    runner = operators.OperatorRunner(SETTINGS, reporter, "cpu", {dtype: LIMITS})
    runner.run(jobs, results, lambda: None, **options)
    return results


def invoke(*arguments: object):
    return CliRunner().invoke(main, ["ops", *map(str, arguments)])


def head(batch: int = 2) -> LayerCase:
    (case,) = layer_cases(["efficientnet_b0"], [batch], ["float32"], ["head_pool"])
    return case


@pytest.mark.parametrize(
    ("op", "options"),
    [
        (
            "stem_conv",
            dict(c=3, o=8, stride=2, padding=SAME, without=("mean", "std"), image_dtype=torch.float32),
        ),
        ("depthwise_conv", dict(c=8, k=5, stride=2, padding=SAME, h=8, w=9, activation="relu6")),
        ("depthwise_conv_gate", dict(c=8, s=3)),
        ("depthwise_conv_gate", dict(se_activation="relu", gate="hardsigmoid", activation="hardswish")),
        ("dense_conv", dict(c=4, o=4)),
        ("pointwise_conv", dict(activation="identity")),
        ("pointwise_conv", dict(activation="relu", without=("gate", "residual"))),
        ("pointwise_conv", dict(h=1, w=1, activation="identity", without=("gate", "residual"))),
        ("head_pool", dict()),
    ],
)  # fmt: skip
def test_the_stock_side_computes_the_same(op, options):
    args = make_args(op, **options)
    module = Unfused(op, args)
    torch.testing.assert_close(
        module(*module.inputs), getattr(reference, op)(*args), rtol=1e-4, atol=1e-5, check_stride=False
    )


def test_every_layer_is_there_once():
    layers = distinct_layers("efficientnet_b0")
    with torch.device("meta"):
        every = network_layers(fold(create_model("efficientnet_b0").eval()), (224, 224))
    assert sum(count for _, count in layers) == len(every)
    assert len(layers) < len(every)
    assert {layer.operator for layer, _ in layers} == {layer.operator for layer in every}
    first, second = (
        layer for layer, _ in layers if layer.name in ("stages.2.0.depthwise", "stages.2.1.depthwise")
    )
    assert (first.stride, second.stride) == (2, 1)


def test_arguments_are_those_of_the_layer():
    layer, _ = next(pair for pair in distinct_layers("efficientnet_b0") if pair[0].gate and pair[0].residual)
    case = LayerCase("efficientnet_b0", layer, 1, 6, "bfloat16")
    x, weight, bias, activation, gate, residual = case.arguments("cpu")
    assert x.shape == (6, *layer.x.shape)
    assert x.dtype == residual.dtype == weight.dtype == torch.bfloat16
    assert (bias.dtype, gate.dtype) == (torch.float32, torch.float32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert (activation, gate.shape) == ("identity", (6, layer.x.shape[0]))
    assert torch.equal(x[0], x[4])
    assert not torch.equal(x[0], x[1])
    assert (
        images_of("pointwise_conv", [x, weight, bias, activation, gate, None], torch.tensor([5]))[0].shape[0]
        == 1
    )


def test_moved_bytes_count_every_tensor_once():
    contest = operators.Contest(head(3), "cpu")
    values = 3 * 320 * 7 * 7 + 1280 * 320 + 1280 + 3 * 1280
    assert contest.bytes == 4 * values


def test_a_layer_is_judged_and_timed():
    results = run([Job(head(), ("cpu", "eager"))])
    ours, stock = results.rows
    assert (ours["status"], stock["status"]) == ("ok", "ok")
    assert 0 < ours["error_usage"] <= 1
    assert 0 < stock["error_usage"] <= 1
    assert ours["copy_share"] == pytest.approx(
        ours["megabytes"] * 1e6 / (ours["median_ms"] / 1e3) / 1e9, rel=1e-2
    )
    # The head's projection at 1e9 multiply-adds a second, its SiLU at 1e8, one after the other.
    macs, silus = 2 * 49 * 320 * 1280, 2 * 49 * 1280
    assert ours["gmacs"] == pytest.approx(macs / 1e9, rel=1e-3)
    assert (ours["matrix_peak_gmacs"], ours["bound"]) == (1.0, "arithmetic")
    least = macs / 1e9 + silus / 1e8
    assert ours["of_roof"] == pytest.approx(least / (ours["median_ms"] / 1e3), rel=1e-2)
    assert ours["gmacs_per_second"] == pytest.approx(macs / 1e6 / ours["median_ms"], rel=1e-2)
    assert (ours["layer"], ours["operator"], ours["step"], ours["layers"]) == ("head", "head_pool", "head", 1)


def test_a_wrong_kernel_has_no_time(monkeypatch):
    original = operators.handle

    def wrong(*names):
        function = original(*names)

        def call(y, *arguments):
            function(y, *arguments)
            y[-1] *= 1.01  # the last image of the batch alone

        return call

    monkeypatch.setattr(operators, "handle", wrong)
    ours, stock = run([Job(head(5), ("cpu", "eager"))]).rows
    assert (ours["status"], stock["status"]) == ("FAIL", "ok")
    assert "median_ms" not in ours
    assert "times what the contract allows" in ours["reason"]


def gate() -> LayerCase:
    """The smallest layer of B0 with a squeeze-excite: 1152 channels at 7 x 7."""
    cases = layer_cases(["efficientnet_b0"], [2], ["float32"], ["depthwise_conv_gate"])
    return next(case for case in cases if case.layer.name == "stages.6.0.depthwise")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", [gate, head])
def test_stock_may_store_in_16_bits_what_the_contract_has_in_32(case, dtype):
    """Ours may not: rounded likewise it is hundreds of times as wrong as the contract allows."""
    contest = operators.Contest(replace(case(), dtype=dtype), "cpu")
    row: dict = {}
    stock = contest.prepare("eager", row)
    assert 0 < row["error_usage"] <= 0.5
    contest._judge(stock, contest._expectation, row)
    assert (row["status"] == "FAIL") == (dtype != "float32")
    assert dtype == "float32" or row["error_usage"] > 100


def without(name: str):
    return lambda module: setattr(module, name, None)


FAULTS = {
    "no bias": (head, without("bias")),
    "another activation": (head, lambda module: setattr(module, "activation", torch.relu)),
    "no squeeze bias": (gate, without("b1")),
    "no excite bias": (gate, without("b2")),
    "another sigmoid": (gate, lambda module: setattr(module, "gate", GATES["hardsigmoid"])),
    "another squeeze activation": (gate, lambda module: setattr(module, "se_activation", torch.relu)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_stock_form_has_no_time(fault, dtype, monkeypatch):
    case, damage = FAULTS[fault]
    original = Unfused.__init__

    def wrong(module, *given, **named):
        original(module, *given, **named)
        damage(module)

    monkeypatch.setattr(Unfused, "__init__", wrong)
    case = replace(case(), dtype=dtype)
    ours, stock = run([Job(case, ("cpu", "eager"))], dtype).rows
    assert (ours["status"], stock["status"]) == ("ok", "FAIL")
    assert "median_ms" not in stock
    assert "times what the contract allows" in stock["reason"]


def test_a_graph_of_other_inputs_has_no_time(monkeypatch):
    def stale(module, inputs, mode):
        y = module(*inputs).roll(1, 0)
        return lambda: y

    monkeypatch.setattr(operators, "compiled_call", stale)
    ours, stock = run([Job(head(), ("cpu", "compiled"))]).rows
    assert (ours["status"], stock["status"]) == ("ok", "FAIL")
    assert "median_ms" not in stock


@pytest.mark.parametrize("peer", ["eager", "eager-search", "eager-native", "compiled"])
def test_stock_on_a_gpu_is_never_tf32(peer, monkeypatch):
    """Whose error the check would refuse; each form has its own settings beside, and leaves none behind."""
    flags, seen, original = torch.backends.cudnn, [], Unfused.forward
    before = flags.allow_tf32, flags.benchmark, flags.enabled

    def forward(module, *inputs):
        seen.append((flags.allow_tf32, flags.benchmark, flags.enabled))
        return original(module, *inputs)

    monkeypatch.setattr(Unfused, "forward", forward)
    monkeypatch.setattr(operators, "compiled_call", lambda module, inputs, mode: lambda: module(*inputs))
    contest, row = operators.Contest(head(), "cpu"), {}
    contest.device = "cuda"
    contest.prepare(peer, row)
    assert row["status"] == "ok"
    assert seen == [(False, peer == "eager-search", peer != "eager-native")]
    assert (flags.allow_tf32, flags.benchmark, flags.enabled) == before


def test_whoever_breaks_off_says_why(monkeypatch):
    def broken(*names):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(operators, "handle", broken)
    ours, stock = run([Job(head(), ("cpu", "eager"))]).rows
    assert (ours["status"], ours["reason"]) == ("error", "RuntimeError: no such kernel")
    assert stock["status"] == "ok"


def test_no_layer_is_begun_after_the_time_is_up():
    assert not run([Job(head(), ("cpu", "eager"))], deadline_seconds=-1).rows


@pytest.mark.slow
def test_compiled_stock_is_timed_too():
    rows = run([Job(head(1), ("cpu", "eager", "compiled"))]).rows
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert all(0 < row["error_usage"] <= 1 for row in rows)


def _rows(case: str, ours: float, stock: float | None, status: str = "ok") -> list[dict]:
    row = operators.new_row(head(), "cpu", "cpu") | {"case": case, "layer": case}
    times = dict(status="ok", gb_per_second=1.0, copy_share=0.5)
    rows = [row | times | dict(median_ms=ours, status=status)]
    return rows + (
        [] if stock is None else [row | times | dict(peer="eager", group="stock", median_ms=stock)]
    )


def test_the_worst_comes_first_and_the_table_is_short():
    rows = _rows("fast", 1.0, 3.0) + _rows("slow", 2.0, 1.0) + _rows("alone", 1.0, None)
    rows += _rows("wrong", 1.0, 1.0, status="FAIL")
    assert [line.first["case"] for line in lines_of(rows)] == ["wrong", "slow", "fast", "alone"]
    results = Results("operators", {"cpu": "x", "gpu": ""}, {}, "", rows)
    for i in range(200):
        rows += _rows(f"layer {i}", 1.0, 2.0)
    console = Console(file=io.StringIO(), width=160)
    console.print(operators_table(results))
    text = console.file.getvalue().splitlines()
    assert len(text) < 100
    assert next(line for line in text if "b0 " in line).rstrip().endswith("FAIL")
    said = notes(results)
    assert f"{204 - MOST_LINES} further lines are in the file" in said[0]
    assert said[1] == "slower than the best stock form: 1 of 202 calls"


def test_the_command_writes_resumes_and_stops(tmp_path):
    options = (
        "--model", "efficientnet_b0", "--operator", "head_pool", "--batch", "1,2", "--dtype", "float32",
        "--device", "cpu", "--backend", "cpu", "--no-compiled", "--rounds", 3, "--min-seconds", 0, "--out",
        tmp_path,
    )  # fmt: skip
    stopped = invoke(*options, "--limit-minutes", 0)
    assert "2 cases left out" in stopped.output
    done = invoke(*options)
    assert done.exit_code == 0, done.output
    assert "vs stock" in done.output
    results = load(tmp_path / "operators-cpu.json", kind="operators")
    rows = results.rows
    assert results.settings["allocator"] == "keeps freed memory"
    assert [(row["batch"], row["peer"]) for row in rows] == [
        (1, "cpu"),
        (1, "eager"),
        (2, "cpu"),
        (2, "eager"),
    ]
    again = invoke(*options, "--resume")
    assert "2 of 2 cases are in" in again.output
    assert load(tmp_path / "operators-cpu.json", kind="operators").rows == rows


@pytest.mark.parametrize(("after", "kept"), [(8, True), (5, False)])
def test_an_interrupt_keeps_the_complete_rounds(monkeypatch, tmp_path, after, kept):
    """Two peers: the eighth sample is in the fourth round of five. What lacks a round is measured again."""
    samples = []

    class Counted:
        def sample(self, min_seconds):
            samples.append(1)
            if len(samples) == after:
                raise KeyboardInterrupt
            return [1e-3]

    monkeypatch.setattr(contest, "candidate", lambda call, device: Counted())
    options = (
        "--model", "efficientnet_b0", "--operator", "head_pool", "--batch", "1,2", "--dtype", "float32",
        "--device", "cpu", "--backend", "cpu", "--no-compiled", "--rounds", 5, "--out", tmp_path,
    )  # fmt: skip
    assert invoke(*options).exit_code == 130
    path = tmp_path / "operators-cpu.json"
    assert path.exists() == kept
    if kept:
        rows = load(path).rows
        assert [(row["batch"], row["status"], row["rounds"]) for row in rows] == [(1, "ok", 3)] * 2
        again = invoke(*options, "--resume")
        assert again.exit_code == 0, again.output
        assert "cases are in" not in again.output
        assert [(row["batch"], row["rounds"]) for row in load(path).rows] == [(1, 5)] * 2 + [(2, 5)] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "resnet50"], "resnet50"),
        (["--batch", "0"], "--batch: 0 is not allowed"),
        (["--device", "cpu", "--backend", "triton"], "'triton' is not for cpu; allowed: cpu"),
        (["--device", "cpu", "--backend", ","], "is empty"),
        (
            ["--device", "cpu", "--operator", "conv"],
            "no layer of efficientnet_b0, efficientnet_b4 is computed by conv",
        ),
    ],
)
def test_wrong_options_are_usage_errors(arguments, words):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_what_follows_the_mean_is_single():
    cases = layer_cases(["efficientnet_b0"], [1], ["bfloat16"], ["pointwise_conv"])
    assert {case.storage for case in cases if case.layer.block == "classifier"} == {torch.float32}
    assert {case.storage for case in cases if case.layer.block != "classifier"} == {torch.bfloat16}
    assert replace(cases[0], dtype="float16").key != cases[0].key
