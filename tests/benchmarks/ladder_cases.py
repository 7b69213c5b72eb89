"""What the tests of the ladder share: a small block, limits in round numbers, rows of a finished ladder, a
form that is wrong.
"""

import pytest

from benchmarks import ladder
from benchmarks.block_calls import BlockCalls
from benchmarks.blocks import BlockCase
from benchmarks.ladder import RUNGS, ladder_case
from benchmarks.ladder_bytes import rung_bytes
from benchmarks.ladder_floor import floor
from benchmarks.limits import Limits
from benchmarks.results import Results
from effnet_fast.measure import Peaks

B0 = "efficientnet_b0"
PEAKS = Peaks(fma_macs=1e9, dot_macs=2e9, silu=1e8)
LIMITS = Limits(1e9, PEAKS)

#: What a CPU has of the ladder without a compiler, and those that are in its table.
CPU_RUNGS = ("eager", "folded", "convolutions", "three-native", "expansion-fused", "whole")
WITHOUT_COMPILED = tuple(rung for rung in RUNGS if rung != "compiled")

ENVIRONMENT = {
    "cpu": "Some CPU", "isa": "avx2", "threads": 2, "date": "2026-01-01", "commit": "0123456",
    "libraries": {"torch": "2.11.0"}, "limits": LIMITS.record(),
}  # fmt: skip

#: Microseconds an image; a string is the status of a rung without a time.
LADDER = dict(eager=400.0, folded=200.0, three_triton="unavailable", three_native=100.0, whole=80.0)


def small_case(dtype: str = "float32", model: str = B0, name: str = "stages.3.1") -> BlockCase:
    """A block at 14 x 14, two images."""
    return ladder_case(model, name, 2, dtype)


def make_wrong(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method `form` of `BlockCalls` computes the last image of a batch wrong, and that one alone."""
    original = getattr(BlockCalls, form)

    def wrong(calls):
        right = original(calls)

        def call():
            y = right()
            y[-1] *= 1.01
            return y

        return call

    monkeypatch.setattr(BlockCalls, form, wrong)


def results_of(rows: list[dict]) -> Results:
    return Results("ladder", dict(ENVIRONMENT), {}, "python -m benchmarks ops --ladder", rows)


def rows_of(**times: float | str) -> list[dict]:
    """Rows as the runner leaves them, of times as in `LADDER`."""
    case = small_case()
    least = floor(case, LIMITS)
    rows = []
    for name, taken in times.items():
        peer = name.replace("_", "-")
        row = ladder.new_row(case, peer, "cpu") | {"bytes_per_image": rung_bytes(case, peer)} | least.record()
        if isinstance(taken, str):
            rows.append(row | {"status": taken, "reason": "not on cpu: a reason"})
            continue
        columns = {"median_us": taken, "p20_us": 0.9 * taken, "p80_us": 1.1 * taken, "median_ms": taken / 500}
        rows.append(row | {"status": "ok", "reason": "", "of_floor": least.us / taken} | columns)
    return rows
