"""`benchmarks ops --ladder`: every rung is judged first, and stands over a counted floor."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from benchmarks import ladder
from benchmarks.blocks import BlockCase, distinct_blocks, mbconv_blocks, named_block
from benchmarks.contest import Job, rows_text
from benchmarks.ladder import RUNGS, LadderRunner, absent, costliest_block, ladder_case
from benchmarks.ladder_bytes import rung_bytes
from benchmarks.ladder_floor import floor
from benchmarks.ladder_tables import lines
from benchmarks.limits import Limits
from benchmarks.progress import Reporter
from benchmarks.runner import Settings
from benchmarks.unfused import UnfusedBlock
from effnet_fast import backends
from effnet_fast.measure import Ceilings
from effnet_fast.ops import reference
from effnet_fast.testing import make_args
from tests.benchmarks.ladder_cases import (
    B0,
    CPU_RUNGS,
    LIMITS,
    PEAKS,
    WITHOUT_COMPILED,
    make_wrong,
    results_of,
    small_case,
)  # fmt: skip

SETTINGS = Settings(rounds=3, min_seconds=0.0, budget_seconds=5.0)


def run(case: BlockCase, peers=WITHOUT_COMPILED) -> list[dict]:
    results = results_of([])
    reporter = Reporter(Console(file=io.StringIO()), title=ladder.case_title, text=rows_text)
    LadderRunner(SETTINGS, reporter, "cpu", LIMITS).run([Job(case, peers)], results, lambda: None)
    return results.rows


def statuses(rows: list[dict]) -> dict[str, str]:
    return {row["peer"]: row["status"] for row in rows}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_rung_is_there_in_order_judged_and_timed(dtype):
    rows = run(small_case(dtype))
    assert [row["peer"] for row in rows] == list(WITHOUT_COMPILED)
    assert statuses(rows) == dict.fromkeys(CPU_RUNGS, "ok") | {"three-triton": "unavailable"}
    for row in rows:
        if row["status"] == "ok":
            assert 0 < row["error_usage"] <= 1
            assert row["p20_us"] <= row["median_us"] <= row["p80_us"]
            assert row["median_us"] == pytest.approx(1e3 * row["median_ms"] / 2, rel=1e-3)
            assert row["of_floor"] == pytest.approx(row["floor_us"] / row["median_us"], rel=1e-2)


@pytest.mark.parametrize(
    ("model", "name", "there"),
    [
        ("efficientnet_lite0", "stages.6.0", CPU_RUNGS),  # no squeeze-excite
        ("efficientnet_lite0", "stages.0.0", [rung for rung in CPU_RUNGS if rung != "expansion-fused"]),
        (B0, "stages.5.1", CPU_RUNGS),  # 5 x 5, residual
    ],
)
def test_blocks_of_every_kind_have_their_rungs(model, name, there):
    rows = run(small_case(model=model, name=name))
    assert [row["peer"] for row in rows if row["status"] == "ok"] == list(there)
    assert {row["status"] for row in rows} == {"ok", "unavailable"}


WRONG = {
    "convolutions": "convolutions",
    "three-native": "three_kernels",
    "expansion-fused": "expansion_fused",
    "whole": "whole",
}


@pytest.mark.parametrize("rung", WRONG)
def test_a_wrong_kernel_fails_and_has_no_time(rung, monkeypatch):
    make_wrong(WRONG[rung], monkeypatch)
    rows = run(small_case())
    assert statuses(rows) == dict.fromkeys(CPU_RUNGS, "ok") | {"three-triton": "unavailable", rung: "FAIL"}
    (row,) = (row for row in rows if row["peer"] == rung)
    assert "median_ms" not in row
    assert "of_floor" not in row
    assert "times what the contract allows" in row["reason"]
    (cells,) = (cells for cells in lines(results_of(rows)) if cells[0] == RUNGS[rung])
    assert cells[1:5] == ["FAIL", "", "", ""]


def test_stock_pytorch_is_held_to_the_same_check(monkeypatch):
    original = UnfusedBlock.forward
    monkeypatch.setattr(UnfusedBlock, "forward", lambda module, x: 1.001 * original(module, x))
    found = statuses(run(small_case()))
    assert (found["eager"], found["folded"], found["whole"]) == ("FAIL", "FAIL", "ok")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_batch_norms_compute_what_folding_makes_of_them(dtype):
    args = make_args("mbconv", dtype=dtype, residual=True, k=5)
    unfolded, folded = (UnfusedBlock(args, batch_norm=norms).eval() for norms in (True, False))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in unfolded.modules()) == 3
    assert unfolded.expand.norm.running_mean.abs().min() > 0
    assert torch.equal(
        unfolded.expand.weight * unfolded.expand.norm.weight.view(-1, 1, 1, 1), folded.expand.weight
    )
    exact = reference.mbconv(*(a.double() if isinstance(a, torch.Tensor) else a for a in args))
    error = (unfolded(args[0]).double() - exact).abs().max() / exact.abs().max()
    assert error < 16 * torch.finfo(dtype).eps


def test_what_does_not_exist_says_so(monkeypatch):
    case = small_case()
    assert absent("three-triton", case, "cpu").startswith("not on cpu: ")
    first = named_block(B0, "stages.0.0", 1, "float32")
    assert absent("expansion-fused", first, "cpu").startswith("no expansion: ")
    assert absent("whole", first, "cpu") == ""

    # A GPU whose libraries are there, but have no kernel of either kind.
    monkeypatch.setattr(backends, "supports", lambda *given, **named: None)
    monkeypatch.setattr(backends, "has_kernel", lambda name, backend: False)
    assert [absent(rung, case, "cuda") for rung in ("convolutions", "three-triton", "three-native")] == [
        ""
    ] * 3
    assert absent("whole", case, "cuda") == "not on cuda: the cuda backend has no kernel for mbconv"
    assert absent("expansion-fused", case, "cuda").endswith("no kernel for expand_depthwise_pool")
    without_gate = small_case(model="efficientnet_lite0", name="stages.6.0")
    assert absent("expansion-fused", without_gate, "cuda").endswith("no kernel for expand_depthwise")
    monkeypatch.setattr(
        backends, "has_kernel", lambda name, backend: name == "expand_depthwise_pool_packed_into"
    )
    assert absent("expansion-fused", replace(case, dtype="float16"), "cuda") == ""
    # What its kernel declines would be the three kernels under another name.
    assert absent("expansion-fused", case, "cuda").startswith(
        "not on cuda: its kernel for expand_depthwise_pool"
    )
    wide = small_case("float16", name="stages.6.0")  # 192 channels in
    assert "takes no float16 of this shape" in absent("expansion-fused", wide, "cuda")

    monkeypatch.setattr(backends, "supports", lambda *given, **named: "it is not built")
    assert absent("three-native", case, "cuda") == "not here: it is not built"


def test_the_default_is_the_block_that_moves_most():
    assert costliest_block(B0) == "stages.1.0"
    every = [named_block(B0, layers[0].block, 1, "float32") for layers in mbconv_blocks(B0)]
    most = max(rung_bytes(case, "eager") for case in every)
    assert rung_bytes(ladder_case(B0, None, 1, "float32"), "eager") == most
    with pytest.raises(ValueError, match="resnet"):
        costliest_block("resnet50")


def test_a_block_is_found_by_the_name_it_has_and_knows_its_like():
    case = named_block(B0, "stages.3.2", 4, "bfloat16")
    assert (case.name, case.shape, case.count) == ("stages.3.2", "80>480>80 k3 @14x14", 2)


def test_bytes_of_the_first_block_are_counted_by_hand():
    """stages.1.0 of B0: 16 -> 96 -> 24, k 3, stride 2, 112 x 112, squeeze-excite, no residual."""
    case = ladder_case(B0, "stages.1.0", 1, "float32")
    x, wide, filtered, y = 16 * 112**2, 96 * 112**2, 96 * 56**2, 24 * 56**2
    three = (x + wide) + (wide + filtered) + (filtered + y)
    expected = {
        "whole": x + y,
        "expansion-fused": x + filtered + filtered + y,
        "three-native": three,
        "three-triton": three,
        "convolutions": three + 3 * filtered,
        "folded": three + 3 * filtered + 2 * (wide + filtered),
        "eager": three + 3 * filtered + 4 * (wide + filtered) + 2 * y,
    }
    for rung, values in expected.items():
        assert rung_bytes(case, rung) == 4 * values
        assert rung_bytes(replace(case, dtype="float16", batch=7), rung) == 2 * values
    assert rung_bytes(case, "compiled") is None


def test_same_padding_and_residuals_count():
    block = small_case()  # stages.3.1: 80 -> 480 -> 80 at 14 x 14 with a residual
    x, wide = 80 * 14**2, 480 * 14**2
    assert rung_bytes(block, "three-native") == 4 * ((x + wide) + 2 * wide + (wide + x) + x)
    assert rung_bytes(block, "convolutions") - rung_bytes(block, "three-native") == 4 * (3 * wide + 2 * x)
    same = ladder_case("tf_efficientnet_b0", "stages.1.0", 1, "float32")
    assert same.depthwise.padding == (0, 0, 1, 1)
    plain = ladder_case(B0, "stages.1.0", 1, "float32")
    assert rung_bytes(same, "folded") - rung_bytes(plain, "folded") == 4 * 2 * 96 * 113**2
    assert rung_bytes(same, "convolutions") == rung_bytes(plain, "convolutions")


@pytest.mark.parametrize(
    ("rung", "megabytes"),
    [("convolutions", 42.1), ("three-native", 27.4), ("expansion-fused", 13.9), ("whole", 4.2)],
)
def test_all_blocks_with_stem_and_head_are_what_the_design_counts(rung, megabytes):
    """The table of DESIGN.md: B0 in float16, an image."""
    blocks = (BlockCase(B0, layers, count, 1, "float16") for layers, count in distinct_blocks(B0))
    stem, head = 2 * (3 * 224**2 + 32 * 112**2), 2 * 320 * 7**2
    total = stem + head + sum(case.count * rung_bytes(case, rung) for case in blocks)
    assert total / 1e6 == pytest.approx(megabytes, abs=0.05)


def test_the_floor_is_the_larger_of_bytes_and_arithmetic():
    """stages.3.1 of B0 in float32: 80 -> 480 -> 80, k 3, 14 x 14, squeeze 20."""
    pixels = 14 * 14
    moved = 4 * 2 * pixels * 80
    matrix, vector = pixels * 2 * 80 * 480 + 2 * 20 * 480, pixels * 9 * 480
    special = pixels * 2 * 480 + 20 + 480
    arithmetic = (matrix + vector) / 1e9 + special / 1e8
    case = small_case()
    slow_arithmetic = floor(case, Limits(1e9, PEAKS))
    assert slow_arithmetic.memory_us == pytest.approx(1e6 * moved / 1e9)
    assert slow_arithmetic.arithmetic_us == pytest.approx(1e6 * arithmetic)
    assert (slow_arithmetic.us, slow_arithmetic.bound) == (slow_arithmetic.arithmetic_us, "arithmetic")
    slow_memory = floor(case, Limits(1e6, PEAKS))
    assert slow_memory.us == pytest.approx(1e6 * moved / 1e6)
    assert slow_memory.bound == "memory"
    unknown = floor(case, Limits(1e9, None))
    assert (unknown.us, unknown.arithmetic_us) == (unknown.memory_us, None)
    # Units of a GPU work side by side: the slowest counts.
    rates = Ceilings(1e9, 1e9, 1e6, 1e9, 1e9, 1e8, 1e8, 1e-6, additive=False)
    assert floor(case, Limits(1e12, rates)).arithmetic_us == pytest.approx(1e6 * matrix / 1e9)
    slow_vector = replace(rates, vector_macs=1e3)
    assert floor(case, Limits(1e12, slow_vector)).arithmetic_us == pytest.approx(1e6 * vector / 1e3)


@pytest.mark.slow
def test_the_compiled_rung_is_judged_and_timed_too():
    rows = run(small_case(), ("folded", "compiled", "whole"))
    assert [row["status"] for row in rows] == ["ok"] * 3
