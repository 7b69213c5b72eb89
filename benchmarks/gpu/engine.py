"""`benchmarks models` and `benchmarks latency` on B0, B4 and B7: the engine against the fair peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu.steps import FAILED, PASSED, Failed, Outcome, Step, Workspace, last_line, one_line

#: The variants whose targets differ, the one that everybody compares first.
PHIS = (0, 4, 7)

#: Of the step's time: single calls of B0 come first, for they take least.
LATENCY_SHARE = 0.2

Row = dict[str, object]


def _engine(space: Workspace) -> Outcome:
    outcome = Outcome("engine", PASSED, "")
    commands = {"latency": ["latency"], **{f"b{phi}": ["models", "--phi", str(phi)] for phi in PHIS}}
    shares = [LATENCY_SHARE, *[(1 - LATENCY_SHARE) / len(PHIS)] * len(PHIS)]
    left = 1.0
    for (name, command), share in zip(commands.items(), shares, strict=True):
        out = space.out / "engine" / name
        file = out / f"{command[0]}-cuda.json"
        if not space.resume:
            file.unlink(missing_ok=True)
        # A share of what is left, so that what one command leaves is the next ones'.
        arguments = [*command, "--device", "cuda", "--dtype", "float16", "--rounds", "3", "--out", str(out)]
        done = space.run(
            f"engine-{name}",
            [sys.executable, "-m", "benchmarks", *arguments, *(["--resume"] if space.resume else [])],
            share=share / left,
        )
        left -= share
        rows = _rows(file)
        if not rows:
            outcome.status = FAILED
            outcome.details.append(f"{name}: {last_line(done)}; see {done.log.name}")
        outcome.rows += rows
    if not outcome.rows:
        raise Failed(f"nothing was measured: {outcome.details[0]}")
    wrong = [row for row in outcome.rows if _is_ours(row) and row["status"] != "ok"]
    if wrong:
        outcome.status = FAILED
    outcome.details += [_failure(row) for row in wrong] + summary_lines(outcome.rows)
    cases = {row["case"] for row in outcome.rows}
    outcome.summary = f"{len(cases)} cases, {len(wrong)} failures of the engine; files in engine/"
    return outcome


def _rows(path: Path) -> list[Row]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except FileNotFoundError:
        return []


def _is_ours(row: Row) -> bool:
    return str(row["group"]).startswith("engine")


def _failure(row: Row) -> str:
    return one_line(f"{row['label']} {row['case']}: {row['status']}: {row['reason']}", width=150)


def summary_lines(rows: Iterable[Row]) -> list[str]:
    """A line for each case: the engine's milliseconds a call, and how many times it beats the best peer."""
    cases: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            cases.setdefault(str(row["case"]), []).append(row)
    lines = []
    for case, members in cases.items():
        stock = min(
            (row for row in members if not _is_ours(row)),
            key=lambda row: row["median_ms"],
            default=None,
        )
        for row in members:
            if _is_ours(row):
                text = f"{case:<34}{row['label']:<20}{row['median_ms']:9.3f} ms"
                if stock is not None:
                    text += f"   {stock['median_ms'] / row['median_ms']:.2f}x of {stock['label']}"
                lines.append(text)
    return lines


ENGINE = Step("engine", "whole networks against eager, compiled and graph-captured peers", 450.0, _engine)
