"""compute-sanitizer over every kernel on small shapes: memory accesses, and races in shared memory."""

from __future__ import annotations

import re
import sys

from benchmarks.gpu.steps import FAILED, PASSED, NotRun, Outcome, Step, Workspace, last_line

TOOLS = ("memcheck", "racecheck")
BACKENDS = ("cuda", "triton")

#: Of the sanitizer when it has found something.
FOUND = 9

_SUMMARY = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+ \w+)")
_FINDING = re.compile(
    r"^=+ ((?:Invalid|Misaligned|Error|Warning|Race|Potential|Out-of|Unused).*)$", re.MULTILINE
)


def _sanitize(space: Workspace) -> Outcome:
    program = space.machine.tool("compute-sanitizer")
    if program is None:
        raise NotRun("compute-sanitizer is not on PATH")
    outcome, waiting = Outcome("sanitize", PASSED, ""), len(TOOLS) * len(BACKENDS)
    for tool in TOOLS:
        if reason := _refusal(space, program, tool):
            outcome.details.append(f"{tool}: not run: it refuses this machine: {reason}")
            waiting -= len(BACKENDS)
            continue
        for backend in BACKENDS:
            waiting -= 1
            _check(space, program, tool, backend, 1 / (waiting + 1), outcome)
    if not outcome.rows:
        raise NotRun("; ".join(outcome.details))
    outcome.summary = ", ".join(f"{row['what']} {row['value']}" for row in outcome.rows)
    return outcome


def _refusal(space: Workspace, program: str, tool: str) -> str | None:
    """Why `tool` cannot look at any program here; None when it can."""
    one = "import torch; torch.ones(1, device='cuda').cpu()"
    tried = space.run(f"sanitize-{tool}-try", [program, "--tool", tool, sys.executable, "-c", one])
    if tried.timed_out:
        return "a program of one line does not end under it"
    if tried.status == 0:
        return None
    said = (line.strip("= ") for line in tried.output.splitlines() if line.startswith("===="))
    wrong = re.compile("not supported|error|unable|denied", re.IGNORECASE)
    return next((line for line in said if wrong.search(line)), last_line(tried))


def _check(space: Workspace, program: str, tool: str, backend: str, share: float, outcome: Outcome) -> None:
    name = f"{tool} {backend}"
    done = space.run(
        f"sanitize-{tool}-{backend}",
        [program, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20",
         sys.executable, "-m", "benchmarks.gpu.small_calls", backend],
        share=share,
        # Each tensor a memory block of its own: the caching allocator's blocks hide what is read beyond them.
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )  # fmt: skip
    if absent := next((line for line in done.output.splitlines() if line.startswith("not run: ")), None):
        outcome.details.append(f"{name}: {absent}")
        return
    found = _SUMMARY.search(done.output)
    outcome.rows.append({"what": name, "value": found[1] if found else "no summary", "unit": ""})
    if done.timed_out:
        outcome.status = FAILED
        outcome.details.append(
            f"{name}: not finished within {space.limit_seconds:.0f} s; see {done.log.name}"
        )
    elif done.status != 0 or found is None:
        outcome.status = FAILED
        findings = list(dict.fromkeys(_FINDING.findall(done.output)))[:5] or [last_line(done)]
        outcome.details += [f"{name}: {finding}; see {done.log.name}" for finding in findings]


SANITIZE = Step("sanitize", "compute-sanitizer over small shapes", 450.0, _sanitize)
