"""warmup(): every step gets a measured time, and a program's steps are timed where they run."""

from __future__ import annotations

import itertools

import pytest
import torch

from effnet_fast import InferenceEngine
from effnet_fast.inference import CpuLimits
from effnet_fast.inference.program import Pass, Program
from effnet_fast.inference.step_times import step_seconds


def test_warmup_measures_every_step(tiny):
    engine = InferenceEngine(tiny, batch_size=4, image_size=32)
    assert engine.plan.measured is None
    expected = engine(torch.ones(4, 3, 32, 32))
    assert engine.warmup() is None
    measured = engine.plan.measured
    assert list(measured) == [layer.name for layer in engine.plan.layers]
    assert all(0 < seconds < 1 for seconds in measured.values())
    assert torch.equal(engine(torch.ones(4, 3, 32, 32)), expected)
    assert "measured" in str(engine.plan)


def test_steps_are_summed_over_passes_and_the_median_is_taken():
    durations = {"stem": [1, 1, 1], "a": [2, 2, 2], "b": [3, 90, 3], "c": [5, 5, 5]}
    now = 0.0
    served = {name: itertools.cycle(values) for name, values in durations.items()}

    def clock() -> float:
        return now

    def call(name):
        def run(*arguments):
            nonlocal now
            now += next(served[name])

        return run

    images = torch.zeros(4, 3, 2, 2)
    first = Pass(0, 2, (call("stem"), (None,)), ((call("a"), ()),), ("stem", "a"))
    again = Pass(2, 4, (call("stem"), (None,)), ((call("a"), ()),), ("stem", "a"))
    last = Pass(0, 4, None, ((call("b"), ()), (call("c"), ())), ("b", "c"))
    program = Program((first, again, last), torch.zeros(4, 1))
    assert step_seconds(program, images, seconds=250, clock=clock) == {"stem": 2, "a": 4, "b": 3, "c": 5}


def test_the_stem_of_a_timed_pass_gets_its_images(tiny, monkeypatch):
    monkeypatch.setattr(CpuLimits, "detect", classmethod(lambda cls: cls(0, 0, threads=1)))
    engine = InferenceEngine(tiny, batch_size=3, image_size=32)
    program = engine._runner.program(3)
    assert len([step for step in program.passes if step.stem is not None]) == 3
    images = torch.randn(3, 3, 32, 32)
    expected = engine(images)
    with torch.inference_mode():
        step_seconds(program, images, seconds=0)
        assert torch.equal(program.output, expected)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_plans_compare_prediction_and_measurement(tiny, backend):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32, backend=backend)
    engine.warmup()
    table = str(engine.plan)
    assert "predicted" in table
    assert "stages.2.1" in table
