"""Peaks: what the times of the native operator mean, with one whose speed is known, and those of this CPU."""

import pytest
import torch

from effnet_fast import native
from effnet_fast.measure import Peaks, cpu_peaks, peaks

#: Operations of one iteration of each kind, and its seconds.
DONE = (64, 128, 16)
SECONDS = (1e-8, 1.5e-8, 4e-8)


class FakeCpu:
    """A clock, and an operator that takes its time; every second call is held up by somebody else."""

    def __init__(self, *, done=DONE, hold_up: float = 0.0):
        self.now, self.calls = 0.0, []
        self._done, self._hold_up = done, hold_up

    def clock(self) -> float:
        return self.now

    def operator(self, kind: int, iterations: int) -> int:
        self.calls.append((kind, iterations))
        self.now += 2e-6 + iterations * SECONDS[kind] + self._hold_up * (len(self.calls) % 2)
        return iterations * self._done[kind]


def measured(cpu: FakeCpu, threads: int = 1) -> Peaks:
    return cpu_peaks(threads, operator=cpu.operator, clock=cpu.clock)


@pytest.mark.parametrize("hold_up", [0.0, 0.003])
def test_rates_are_those_of_the_best_call_of_every_kind(hold_up):
    cpu = FakeCpu(hold_up=hold_up)
    found = measured(cpu)
    rates = [done / seconds for done, seconds in zip(DONE, SECONDS, strict=True)]
    # What a call costs besides, 2 us here, must not show.
    assert (found.fma_macs, found.dot_macs, found.silu) == pytest.approx(tuple(rates), rel=2e-3)
    assert cpu.now < 0.5


def test_threads_count_as_one_does():
    assert measured(FakeCpu(), threads=3).silu == pytest.approx(3 * measured(FakeCpu()).silu)
    with pytest.raises(ValueError, match="threads is 0; allowed: 1 and more"):
        cpu_peaks(0)


def test_without_bfloat16_instructions_it_is_computed_in_float32():
    found = measured(FakeCpu(done=(64, 0, 16)))
    assert found.dot_macs == found.fma_macs > 0


def test_only_bfloat16_has_instructions_of_its_own():
    found = Peaks(fma_macs=1.0, dot_macs=2.0, silu=3.0)
    rates = {dtype: found.matrix_macs(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert rates == {torch.float32: 1.0, torch.float16: 1.0, torch.bfloat16: 2.0}


def test_a_library_without_the_operator_has_no_peaks(monkeypatch):
    monkeypatch.setattr(peaks, "_library_operator", lambda: None)
    assert cpu_peaks(2) is None


def test_peaks_of_this_cpu_make_sense():
    found = cpu_peaks(1)
    # From a small core at 1 GHz with 4 lanes to two 512-bit units at 6 GHz. No slower in bfloat16: where dot
    # products of it are (Intel), another instruction set is the machine's best. A matrix unit does 512
    # products a cycle, 16 times as many as two vectors of float32.
    assert 1e9 < found.fma_macs < 4e11
    least, most = (4, 24) if native.cpu_isa() == "avx512_amx" else (0.9, 4.5)
    assert least * found.fma_macs < found.dot_macs < most * found.fma_macs
    assert 1e7 < found.silu < found.fma_macs
