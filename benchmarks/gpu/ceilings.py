"""What this GPU can do at most: ceilings.cu, compiled and run."""

from __future__ import annotations

import json

from benchmarks.gpu.steps import PASSED, ROOT, Failed, NotRun, Outcome, Step, Workspace, last_line

SOURCE = ROOT / "benchmarks" / "gpu" / "ceilings.cu"


def _ceilings(space: Workspace) -> Outcome:
    nvcc = space.machine.tool("nvcc")
    if nvcc is None:
        raise NotRun(space.machine.missing or "nvcc is not on PATH")
    program = space.out / "ceilings"
    built = space.run(
        "ceilings-build",
        [nvcc, "-std=c++20", "-O3", f"-arch={space.machine.architecture}", "-o", str(program), str(SOURCE)],
    )
    if built.status != 0:
        raise Failed(f"ceilings.cu does not compile: {last_line(built)}; see {built.log.name}")
    done = space.run("ceilings", [str(program)])
    if done.timed_out or done.status != 0:
        raise Failed(f"{last_line(done)}; see {done.log.name}")
    rows = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    cells = [f"{row['what']:<40}{row['value']:>11,.4g} {row['unit']:<8}" for row in rows]
    details = ["   ".join(cells[i : i + 2]).rstrip() for i in range(0, len(cells), 2)]
    return Outcome("ceilings", PASSED, f"{len(rows)} figures", details, rows)


CEILINGS = Step("ceilings", "bandwidth, rates, launch gaps, and the error of tanh.approx", 240.0, _ceilings)
