"""`benchmarks blocks`: the cases are the network's blocks, and every form of them is judged and timed."""

import io

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from benchmarks import blocks
from benchmarks.block_calls import BlockCalls
from benchmarks.block_tables import blocks_table, notes, summed
from benchmarks.blocks import BlockCase, BlockRunner, block_cases, distinct_blocks, new_row
from benchmarks.commands import main
from benchmarks.contest import Job, rows_text
from benchmarks.ideal import ideal_seconds
from benchmarks.progress import Reporter
from benchmarks.results import Results, load
from benchmarks.runner import Settings
from benchmarks.unfused import UnfusedBlock
from effnet_fast.measure import Peaks
from effnet_fast.models import create_model, macs_by_kind
from effnet_fast.ops import reference
from effnet_fast.testing import make_args
from tests.benchmarks.ladder_cases import make_wrong

SETTINGS = Settings(rounds=3, min_seconds=0.0, budget_seconds=5.0)
PEAKS = Peaks(fma_macs=1e9, dot_macs=2e9, silu=1e8)
B0 = "efficientnet_b0"
PEERS = ("eager", "three-kernels", "mbconv")


def small_case(dtype: str = "float32", model: str = B0, name: str = "stages.3.1") -> BlockCase:
    """A block at 14 x 14, two images."""
    return next(case for case in block_cases(model, [2], [dtype]) if case.name == name)


def run(case: BlockCase, peers=PEERS, peaks: Peaks | None = PEAKS) -> dict[str, dict]:
    results = Results("blocks", {"cpu": "x", "threads": 1}, {}, "")
    reporter = Reporter(Console(file=io.StringIO()), title=blocks.case_title, text=rows_text)
    BlockRunner(SETTINGS, reporter, peaks).run([Job(case, peers)], results, lambda: None)
    return {row["peer"]: row for row in results.rows}


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(without=("w_expand", "b_expand"), residual=True),
        dict(without=("w1", "b1", "w2", "b2"), activation="relu6", residual=True),
        dict(
            stride=2, padding=(0, 0, 1, 1), activation="hardswish", se_activation="relu", gate="hardsigmoid"
        ),
    ],
)
def test_the_stock_side_computes_the_same(options):
    args = make_args("mbconv", **options)
    torch.testing.assert_close(
        UnfusedBlock(args)(args[0]), reference.mbconv(*args), rtol=1e-4, atol=1e-5, check_stride=False
    )


def test_every_block_is_there_with_its_work():
    found = distinct_blocks(B0)
    assert sum(count for _, count in found) == 16
    assert len(found) == 12
    by_kind = macs_by_kind(create_model(B0), 224)
    head = 320 * 1280 * 7 * 7
    inside = sum(by_kind.values()) - by_kind["stem"] - head - by_kind["classifier"]
    gmacs = sum(case.gmacs * case.count for case in block_cases(B0, [1], ["float32"]))
    assert gmacs * 1e9 == pytest.approx(inside)


def test_blocks_without_a_depthwise_convolution_are_left_out():
    names = {layers[0].block for layers, _ in distinct_blocks("efficientnetv2_s")}
    assert names
    assert all(name.split(".")[1] >= "3" for name in names)  # the first three stages are FusedMBConv
    first, *_ = distinct_blocks("efficientnet_lite0")
    case = BlockCase("efficientnet_lite0", first[0], 1, 1, "float32")
    assert case.shape == "32>16 k3 @112x112"  # neither an expansion nor a squeeze-excite
    assert [argument is None for argument in case.arguments()[1:9]] == [True, True, False, False, *[True] * 4]


def test_arguments_are_those_of_the_block():
    case = small_case("bfloat16")
    x, w_expand, _, w_dw, _, w1, _, w2, _, w_project, *rest = case.arguments()
    assert case.shape == "80>480>80 k3 @14x14"
    assert (case.count, x.shape, x.dtype) == (2, (2, 80, 14, 14), torch.bfloat16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert (w_expand.shape[0], w_dw.shape[2:], w1.shape[0], w_project.shape[0]) == (480, (3, 3), 20, 80)
    assert w2.dtype == torch.float32
    assert rest[-1] is True  # residual


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_form_is_judged_and_timed(dtype):
    rows = run(small_case(dtype))
    assert {peer: row["status"] for peer, row in rows.items()} == dict.fromkeys(PEERS, "ok")
    for row in rows.values():
        assert 0 < row["error_usage"] <= 1
        assert row["of_peak"] == pytest.approx(row["ideal_ms"] / row["median_ms"], rel=1e-2)


@pytest.mark.parametrize("name", ["stages.0.0", "stages.6.0"])
def test_both_of_our_forms_compute_the_block_at_both_ends_of_lite0(name):
    rows = run(small_case(model="efficientnet_lite0", name=name), PEERS[1:])
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_a_wrong_kernel_has_no_time(monkeypatch):
    make_wrong("whole", monkeypatch)
    rows = run(small_case())
    assert {peer: row["status"] for peer, row in rows.items()} == dict.fromkeys(PEERS, "ok") | {
        "mbconv": "FAIL"
    }
    assert "median_ms" not in rows["mbconv"]
    assert "of_peak" not in rows["mbconv"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", ["expand", "depthwise", "project"])
def test_a_wrong_stock_form_has_no_time(part, dtype, monkeypatch):
    original = UnfusedBlock.__init__

    def wrong(module, arguments):
        original(module, arguments)
        getattr(module, part).bias = None

    monkeypatch.setattr(UnfusedBlock, "__init__", wrong)
    rows = run(small_case(dtype))
    assert {peer: row["status"] for peer, row in rows.items()} == dict.fromkeys(PEERS, "ok") | {
        "eager": "FAIL"
    }
    assert "median_ms" not in rows["eager"]
    line = next(line for line in table(list(rows.values())).splitlines() if "stages.3.1" in line)
    assert "FAIL" in line
    assert notes(Results("blocks", {}, {}, "", list(rows.values())))[0].startswith(
        "eager NHWC: FAIL: error is "
    )


def test_a_graph_of_other_inputs_has_no_time(monkeypatch):
    def stale(module, inputs, mode):
        y = module(*inputs).roll(1, 0)
        return lambda: y

    monkeypatch.setattr(blocks, "compiled_call", stale)
    rows = run(small_case(), ("compiled", "mbconv"))
    assert {peer: row["status"] for peer, row in rows.items()} == {"compiled": "FAIL", "mbconv": "ok"}
    assert "median_ms" not in rows["compiled"]


def test_whoever_breaks_off_says_why(monkeypatch):
    def broken(calls):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(BlockCalls, "three_kernels", broken)
    rows = run(small_case())
    assert (rows["three-kernels"]["status"], rows["mbconv"]["status"]) == ("error", "ok")
    assert rows["three-kernels"]["reason"] == "RuntimeError: no such kernel"


def test_the_ideal_is_its_arithmetic_at_the_peaks():
    """Counted by hand for stages.3.1 of B0: 80 -> 480 -> 80, k 3, 14 x 14, squeeze 20, two images."""
    pixels = 2 * 14 * 14
    matrix = pixels * 2 * 80 * 480 + 2 * 2 * 20 * 480
    depthwise = pixels * 9 * 480
    special = pixels * 2 * 480 + 2 * (20 + 480)
    for dtype, peak in (("float32", 1e9), ("bfloat16", 2e9)):
        expected = matrix / peak + depthwise / 1e9 + special / 1e8
        assert small_case(dtype).ideal_ms(PEAKS) == pytest.approx(1e3 * expected)
    # Squeeze-excite by itself and the classifier are float32 in every network.
    layer = small_case("bfloat16").layers[0]
    once, again = (ideal_seconds(layer, n, torch.bfloat16, torch.bfloat16, PEAKS) for n in (1, 2))
    assert again == pytest.approx(2 * once)


def rows_of(block: str, count: int, **times: float | None) -> list[dict]:
    row = new_row(small_case(), "eager") | {"case": block, "block": block, "blocks": count, "gmacs": 0.01}
    names = {"eager": "eager", "three": "three-kernels", "one": "mbconv"}
    return [
        row
        | {"peer": names[peer], "label": peer, "ideal_ms": 0.5}
        | (
            {"status": "FAIL", "reason": "error is 3 times what the contract allows"}
            if value is None
            else {"status": "ok", "median_ms": value, "of_peak": 0.5 / value}
        )
        for peer, value in times.items()
    ]


def table(rows: list[dict]) -> str:
    console = Console(file=io.StringIO(), width=180)
    console.print(blocks_table(Results("blocks", {"cpu": "x", "threads": 2}, {}, "", rows)))
    return console.file.getvalue()


def test_the_table_has_ratios_and_the_sum_of_the_network():
    rows = rows_of("first", 1, eager=4.0, three=2.0, one=1.0) + rows_of("second", 3, eager=8, three=3, one=2)
    lines = table(rows).splitlines()
    first = next(line for line in lines if "first" in line).split()
    assert first[-5:] == ["4.00x", "2.00x", "10.0", "0.500", "50%"]
    total = next(line for line in lines if "all blocks" in line).split()
    # 1 + 3 x 2 ms of ours, 4 + 3 x 8 of eager's, 2 + 3 x 3 of three kernels; 4 x 0.5 ms at the peaks.
    assert total[-9:] == ["f32", "28.000", "11.000", "7.000", "4.00x", "1.57x", "5.7", "2.000", "29%"]


def test_a_block_that_fails_leaves_no_sum_and_its_reason():
    rows = rows_of("first", 1, eager=4.0, three=2.0, one=None) + rows_of("second", 1, eager=8, three=3, one=2)
    text = table(rows)
    assert "FAIL" in text
    total = next(line for line in text.splitlines() if "all blocks" in line).split()
    assert total[-8:] == ["12.000", "5.000", "-", "-", "-", "-", "-", "-"]
    assert summed([{row["peer"]: row for row in rows[:3]}])["mbconv"]["median_ms"] is None
    said = notes(Results("blocks", {}, {}, "", rows))
    assert said == ["one: FAIL: error is 3 times what the contract allows (1 blocks)"]


def test_without_peaks_there_are_no_shares():
    rows = run(small_case(), PEERS, peaks=None)
    assert all(row["ideal_ms"] is None for row in rows.values())
    line = next(line for line in table(list(rows.values())).splitlines() if "stages.3.1" in line)
    assert line.split()[-2:] == ["-", "-"]


def test_the_command_writes_and_resumes(tmp_path, monkeypatch):
    two = [case for case in block_cases(B0, [1], ["float32"]) if case.name in ("stages.3.0", "stages.3.1")]
    monkeypatch.setattr(blocks, "block_cases", lambda *given: two)
    options = ["blocks", "--batch", "1", "--rounds", "3", "--min-seconds", "0", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "all blocks" in done.output
    results = load(tmp_path / f"blocks-{B0}.json", kind="blocks")
    assert [row["peer"] for row in results.rows] == list(PEERS) * 2
    assert results.settings["allocator"] == "keeps freed memory"
    again = CliRunner().invoke(main, [*options, "--resume"])
    assert again.exit_code == 0, again.output
    assert "2 of 2 cases are in" in again.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "resnet50"], "resnet50"),
        (["--batch", "0"], "--batch: 0 is not allowed"),
        (["--dtype", "int8"], "'int8' is not known"),
    ],
)
def test_wrong_options_are_refused(arguments, words):
    done = CliRunner().invoke(main, ["blocks", *arguments])
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.slow
def test_the_compiled_form_is_timed_too():
    rows = run(small_case(), ("eager", "compiled", "mbconv"))
    assert [row["status"] for row in rows.values()] == ["ok"] * 3
