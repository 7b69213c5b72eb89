"""A line for each target of a suite: what was wanted, what was measured, and whether that is met."""

from __future__ import annotations

from collections.abc import Collection

from benchmarks.cases import Case
from benchmarks.results import Results
from benchmarks.rows import new_row
from benchmarks.suites import SUITES, Suite, Target
from benchmarks.tables import SHORT_DTYPES, STOCK, model_text, ratio, ratio_text

#: How the groups are called in a sentence.
GROUPS = {
    STOCK: "every peer",
    "runtime": "the fastest runtime",
    "plain": "torch.compile as it comes",
    "compiled": "torch.compile with a tuned allocator",
}

MET, MISSED, OPEN = "met", "missed", "open"


def target_lines(results: Results) -> list[str]:
    """The lines of the suite that `results` is of; none where it is of none.

    A target is missed where the ratio of one case is too small, and open where none is but one case has no
    ratio: it was not measured, or nobody of that group could run it.
    """
    suite = SUITES.get(str(results.settings.get("suite")))
    return [] if suite is None else [_line(target, suite, results) for target in suite.targets]


def _line(target: Target, suite: Suite, results: Results) -> str:
    cases = [case for case in suite.cases([target.model]) if case.batch in (target.batches or (case.batch,))]
    ratios = {case: ratio(results.of_case(case.key), target.group) for case in cases}
    one_batch = len({case.batch for case in cases}) == 1
    texts = [f"{_setting(case, one_batch)} {ratio_text(value)}" for case, value in ratios.items()]
    name = model_text(new_row(cases[0], "engine"))
    batches = f"batch {cases[0].batch}" if one_batch else "every batch"
    wanted = f"{target.least:.2f}x of {GROUPS[target.group]} wanted"
    verdict = _verdict(target.least, ratios.values())
    return f"{verdict:<6} {name}, {batches}: {wanted}; {', '.join(texts)}"


def _setting(case: Case, one_batch: bool) -> str:
    return ("" if one_batch else f"batch {case.batch} ") + SHORT_DTYPES[case.dtype]


def _verdict(least: float, ratios: Collection[float | None]) -> str:
    if any(value is not None and value < least for value in ratios):
        return MISSED
    return OPEN if None in ratios else MET
