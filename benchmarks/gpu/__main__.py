"""`python -m benchmarks.gpu`: the standard library alone, so that what is missing can be said."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu import machine as machines
from benchmarks.gpu import report
from benchmarks.gpu.build import BUILD
from benchmarks.gpu.ceilings import CEILINGS
from benchmarks.gpu.engine import ENGINE
from benchmarks.gpu.operators import COMPILED, OPERATORS
from benchmarks.gpu.sanitize import SANITIZE
from benchmarks.gpu.steps import FAILED, NOT_RUN, Step, choose, run_step
from benchmarks.gpu.tests import TEST

STEPS = {step.name: step for step in (BUILD, TEST, SANITIZE, CEILINGS, OPERATORS, ENGINE, COMPILED)}
OUT = Path(__file__).resolve().parents[1] / "results" / "local" / "gpu"

NOTHING_RAN = 2
INTERRUPTED = 130  # the exit status of a shell for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None, steps: Mapping[str, Step] = STEPS) -> int:
    """Run the chosen steps; exit status 1 when one failed, 2 when none could run or an option is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Build, test and measure on this machine's GPU. Needs no network.",
        epilog="; ".join(f"{step.name}: {step.about}" for step in steps.values()),
    )
    parser.add_argument("--step", default="", help=f"some of {','.join(steps)}; default: all")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="of each step, instead of its own")
    parser.add_argument("--resume", action="store_true", help="keep the layers measured by an earlier run")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of logs, JSON and CSV (%(default)s)")
    given = parser.parse_args(arguments)
    if given.limit is not None and given.limit <= 0:
        parser.error(f"--limit: {given.limit:g} is not positive")
    try:
        chosen = choose(steps, given.step)
        given.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    machine = machines.find()
    outcomes, interrupted = [], False
    for step in chosen:
        if not machine.reason:
            _say(f"{step.name}: {step.about} (at most {given.limit or step.limit_seconds:.0f} s)")
        try:
            outcome = run_step(step, machine, given.out, limit_seconds=given.limit, resume=given.resume)
        except KeyboardInterrupt:
            interrupted = True
            break
        outcomes.append(outcome)
        # After each, so that an interrupt keeps those done.
        report.save(machine, outcomes, given.out)
    _say("\n".join(report.table(machine, outcomes, given.out)))
    if interrupted:
        return INTERRUPTED
    if any(outcome.status == FAILED for outcome in outcomes):
        return 1
    return NOTHING_RAN if all(outcome.status == NOT_RUN for outcome in outcomes) else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
