"""Tests the CPU kernels without PyTorch: ``python -m tests.cpp.run [kernel ...]``.

One executable a kernel, under AddressSanitizer and UndefinedBehaviorSanitizer, for every instruction set of
this machine. ``--target aarch64`` builds them for 64-bit ARM and runs them in an emulator where there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import click

from tests.cpp.build import KERNELS, NO_EMULATOR, TARGETS, Target, build


def run(program: Path, target: Target) -> subprocess.CompletedProcess[str]:
    """The finished process of `program`, by the target's emulator where it has one."""
    return subprocess.run([*(target.emulator or ()), str(program)], capture_output=True, text=True)


def checks(finished: subprocess.CompletedProcess[str]) -> tuple[int, int] | None:
    """How many checks passed and failed; None of a program that did not come to its end."""
    counts = re.search(r"^(\d+) passed, (\d+) failed$", finished.stdout, re.MULTILINE)
    return (int(counts[1]), int(counts[2])) if counts else None


def _report(kernel: str, target: Target) -> tuple[int, int]:
    """Build and run one test, show its line; what it passed and failed, a crash being one failure."""
    program = build(kernel, target, lambda line: click.echo(f"  {line}", err=True))
    if target.emulator is None:
        click.echo(f"{kernel:22} built for {target.name}, not run: {NO_EMULATOR}")
        return 0, 0
    start = time.perf_counter()
    finished = run(program, target)
    seconds = time.perf_counter() - start
    passed, failed = checks(finished) or (0, 1)
    good = finished.returncode == 0 and passed > 0
    if not good:
        click.echo(finished.stdout + finished.stderr, err=True)
        failed = max(failed, 1)
    click.echo(
        f"{kernel:22} {'ok    ' if good else 'FAILED'} {passed:5} passed, {failed} failed, {seconds:.1f} s"
    )
    return passed, failed


@click.command(help=__doc__)
@click.argument("kernels", nargs=-1, type=click.Choice(KERNELS))
@click.option("--target", default="native", show_default=True, type=click.Choice(list(TARGETS)))
def main(kernels: tuple[str, ...], target: str) -> None:
    try:
        machine = TARGETS[target]()
        results = [_report(kernel, machine) for kernel in kernels or KERNELS]
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    failed = sum(bad for _, bad in results)
    click.echo(f"{sum(good for good, _ in results)} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
