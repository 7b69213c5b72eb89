import statistics

import pytest

from effnet_fast.measure import LocalCandidate, alternate, percentile, summarize
from effnet_fast.measure.timing import REWARM_BELOW_SECONDS


class Clock:
    """A clock that work moves on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fixed:
    def __init__(self, seconds, log=None, name=""):
        self.seconds, self.log, self.name = seconds, log, name

    def sample(self, min_seconds):
        if self.log is not None:
            self.log.append(self.name)
        return [self.seconds]


def test_every_candidate_is_sampled_once_a_round_in_rotating_order():
    log = []
    alternate({name: Fixed(1.0, log, name) for name in "abc"}, rounds=4, min_seconds=0)
    assert "".join(log) == "abc" + "bca" + "cab" + "abc"


def test_figures_are_medians_over_rounds_not_over_calls():
    rounds = iter([[1.0] * 100, [2.0], [3.0]])  # a hundred calls of one round weigh as much as one of another

    class Drifting:
        def sample(self, min_seconds):
            return next(rounds)

    summary = alternate({"a": Drifting()}, rounds=3)["a"]
    assert (summary.median, summary.best, summary.rounds, summary.calls) == (2.0, 1.0, 3, 102)
    assert summary.p20 == pytest.approx(1.4)
    assert summary.p80 == pytest.approx(2.6)
    assert summary.spread == pytest.approx(0.6)


def test_percentile_agrees_with_the_standard_library():
    values = [5.0, 1.0, 4.0, 2.0, 9.0, 7.0]
    inclusive = statistics.quantiles(values, n=5, method="inclusive")
    assert percentile(values, 0.2) == pytest.approx(inclusive[0])
    assert percentile(values, 0.8) == pytest.approx(inclusive[3])
    assert percentile([3.0], 0.2) == 3.0


def test_budget_ends_after_a_whole_round_and_not_before_three():
    clock = Clock()
    log = []

    class Slow(Fixed):
        def sample(self, min_seconds):
            clock.now += 10
            return super().sample(min_seconds)

    candidates = {name: Slow(1.0, log, name) for name in "ab"}
    assert alternate(candidates, rounds=9, budget_seconds=1, clock=clock)["a"].rounds == 3
    assert alternate(candidates, rounds=9, budget_seconds=70, clock=clock)["b"].rounds == 4
    assert log.count("a") == log.count("b")


def test_a_sample_lasts_and_begins_with_an_untimed_call():
    clock = Clock()
    durations = iter([5.0, *[0.1] * 20])  # the first call after another candidate is slow
    candidate = LocalCandidate(lambda: setattr(clock, "now", clock.now + next(durations)), clock=clock)
    assert candidate.sample(0.25) == pytest.approx([0.1, 0.1, 0.1])


def test_a_long_call_is_a_sample_of_its_own_without_a_second_one():
    clock = Clock()
    calls = []
    candidate = LocalCandidate(
        lambda: (calls.append(1), setattr(clock, "now", clock.now + 2 * REWARM_BELOW_SECONDS)), clock=clock
    )
    assert len(candidate.sample(0.0)) == 1
    assert len(calls) == 2
    assert len(candidate.sample(0.0)) == 1
    assert len(calls) == 3


def test_the_device_is_waited_for_around_every_call():
    log = []
    candidate = LocalCandidate(lambda: log.append("call"), synchronize=lambda: log.append("wait"))
    candidate.sample(0.0)
    assert log[:3] == ["wait", "call", "wait"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: alternate({"a": Fixed(1.0)}, rounds=2), "rounds is 2"),
        (lambda: alternate({"a": Fixed(1.0)}, min_seconds=-1), "min_seconds is -1"),
        (lambda: percentile([], 0.5), "values is empty"),
        (lambda: percentile([1.0], 1.5), "share is 1.5"),
        (lambda: summarize([[1.0], []]), "every round"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_no_candidates_no_results():
    assert alternate({}) == {}


@pytest.mark.parametrize(("samples", "rounds"), [(6, 3), (7, 3), (11, 5), (5, 0)])
def test_an_interrupt_keeps_the_rounds_that_are_complete(samples, rounds):
    taken = []

    class Stops(Fixed):
        def sample(self, min_seconds):
            if len(taken) == samples:
                raise KeyboardInterrupt
            taken.append(self)
            return super().sample(min_seconds)

    told = []
    candidates = {"a": Stops(1.0), "b": Stops(2.0)}
    if not rounds:
        with pytest.raises(KeyboardInterrupt):
            alternate(candidates, rounds=9, on_interrupt=lambda: told.append(1))
        assert not told
        return
    found = alternate(candidates, rounds=9, on_interrupt=lambda: told.append(1))
    assert told == [1]
    assert {name: (summary.median, summary.rounds) for name, summary in found.items()} == {
        "a": (1.0, rounds),
        "b": (2.0, rounds),
    }
    taken.clear()
    with pytest.raises(KeyboardInterrupt):  # without somebody to tell it is nobody's
        alternate(candidates, rounds=9)
