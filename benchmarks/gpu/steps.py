"""Steps that cannot harm each other: each has a time limit, a log, and one of three ends.

What a machine lacks is no failure: a step says "not run" and why. Everything that may hang or crash runs in
a process of its own, which ends with its limit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.machine import Machine

#: Folder that holds the package `benchmarks`; commands are run in it.
ROOT = Path(__file__).resolve().parents[2]

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"

#: A command that is out of time is asked to end first: pytest and `benchmarks ops` then write what they have.
GRACE_SECONDS = 20.0


class NotRun(Exception):
    """This machine cannot run a step; the message says what is missing."""


class Failed(Exception):
    """A step that found something wrong; the message is one line."""


@dataclass
class Outcome:
    """How a step ended.

    Attributes:
        step: its name.
        status: PASSED, FAILED or NOT_RUN.
        summary: one line.
        details: further lines, the most important first.
        rows: measured values, for the CSV file.
    """

    step: str
    status: str
    summary: str
    details: list[str] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Finished:
    """A command that ended, or was ended."""

    status: int
    output: str
    timed_out: bool
    log: Path


class Workspace:
    """What a step is given: the machine, a folder for its files, and the time that it has left."""

    def __init__(self, machine: Machine, out: Path, limit_seconds: float, *, resume: bool = False) -> None:
        self.machine, self.out, self.resume = machine, out, resume
        self.limit_seconds = limit_seconds
        self._end = time.monotonic() + limit_seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def python(self, name: str, *arguments: str, **environment: str) -> Finished:
        """`run` of the Python that runs this."""
        return self.run(name, [sys.executable, *arguments], **environment)

    def run(self, name: str, command: Sequence[str], *, share: float = 1.0, **environment: str) -> Finished:
        """Run `command` with its output in <name>.log, for as long as the step may take, or a share of that.

        Its time over, it gets SIGINT, and `GRACE_SECONDS` later it is killed with all that it started.
        """
        log = self.out / f"{name}.log"
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **environment}
        variables.pop("TRITON_INTERPRET", None)
        with log.open("wb") as file:
            with _children_hear_sigint():
                process = subprocess.Popen(
                    list(command),
                    cwd=ROOT,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            try:
                timed_out = not _ends(process, share * self.seconds_left)
                if timed_out:
                    process.send_signal(signal.SIGINT)
                    _ends(process, GRACE_SECONDS)
            finally:
                # What it started goes, too, also when this is interrupted.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Finished(process.returncode, log.read_text(errors="replace"), timed_out, log)


@contextlib.contextmanager
def _children_hear_sigint() -> Iterator[None]:
    """What is started in here can be asked to end, also where this process ignores SIGINT.

    It does so when a script started it with `&`, and what is ignored stays ignored in every child (POSIX.1,
    Shell Command Language, 2.11): a command out of time would be killed and lose what it has.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ends(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


@dataclass(frozen=True)
class Step:
    """`run` returns an `Outcome`, or raises `NotRun` or `Failed`."""

    name: str
    about: str
    limit_seconds: float
    run: Callable[[Workspace], Outcome]


def choose(steps: Mapping[str, Step], text: str) -> list[Step]:
    """ "build,test" -> those steps, in the order of `steps`; ValueError for one that is not known."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(names - set(steps)):
        raise ValueError(f"--step: {', '.join(unknown)} is not known; steps: {', '.join(steps)}")
    return [step for name, step in steps.items() if not names or name in names]


def run_step(
    step: Step, machine: Machine, out: Path, *, limit_seconds: float | None = None, resume: bool = False
) -> Outcome:
    """The outcome of `step`, whatever happens in it; only Ctrl-C ends more than the step."""
    begin = time.monotonic()
    try:
        if machine.reason:
            raise NotRun(machine.reason)
        workspace = Workspace(machine, out, limit_seconds or step.limit_seconds, resume=resume)
        outcome = step.run(workspace)
    except NotRun as reason:
        outcome = Outcome(step.name, NOT_RUN, one_line(reason))
    except Failed as error:
        outcome = Outcome(step.name, FAILED, one_line(error))
    except Exception as error:  # a step must not take the next ones with it
        outcome = Outcome(step.name, FAILED, one_line(f"{type(error).__name__}: {error}"))
    outcome.seconds = round(time.monotonic() - begin, 1)
    return outcome


def one_line(text: object, *, width: int = 200) -> str:
    """`text` on one line, cut where it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= width else f"{line[: width - 3]}..."


def last_line(finished: Finished) -> str:
    """What a command said last, for a sentence about it."""
    lines = [line for line in finished.output.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else f"it said nothing, exit status {finished.status}"
