"""`benchmarks ops` on the layers of B0, B4 and B7: batch by batch, each with its share of the time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.gpu.steps import (
    FAILED,
    PASSED,
    Failed,
    Finished,
    Outcome,
    Step,
    Workspace,
    last_line,
    one_line,
)

MODELS = ("efficientnet_b0", "efficientnet_b4", "efficientnet_b7")

#: Large ones first: what they show, a kernel's own speed, is what is missed most when time runs out.
BATCHES = (256, 32, 1)

#: Left of a batch's time when its last layer is begun: the slowest takes that long.
MARGIN_SECONDS = {"ops": 15.0, "compiled": 45.0}

MOST_SLOWER = 15

Row = dict[str, object]


def _ops(space: Workspace) -> Outcome:
    return _measure(space, "ops", "--no-compiled")


def _compiled(space: Workspace) -> Outcome:
    return _measure(space, "compiled", "--compiled")


def _measure(space: Workspace, name: str, *options: str) -> Outcome:
    outcome = Outcome(name, PASSED, "")
    for index, batch in enumerate(BATCHES):
        out = space.out / name / f"batch-{batch}"
        if not space.resume:
            (out / "operators-cuda.json").unlink(missing_ok=True)
        done = _run_batch(space, name, batch, out, space.seconds_left / (len(BATCHES) - index), options)
        rows = _rows(out / "operators-cuda.json")
        outcome.rows += rows
        if done.status not in (0, 1) and not done.timed_out:
            raise Failed(f"batch {batch}: {last_line(done)}; see {done.log.name}")
    wrong = [row for row in outcome.rows if row["group"] == "ours" and row["status"] != "ok"]
    if wrong:
        outcome.status = FAILED
    if not outcome.rows:
        raise Failed(f"no layer was measured within {space.limit_seconds:.0f} s")
    cases = {row["case"] for row in outcome.rows}
    outcome.summary = f"{len(cases)} layers measured, {len(wrong)} wrong results; files in {name}/"
    outcome.details = [_failure(row) for row in wrong[:5]] + summary_lines(outcome.rows)
    return outcome


def _run_batch(
    space: Workspace, name: str, batch: int, out: Path, seconds: float, options: Sequence[str]
) -> Finished:
    minutes = max(0.0, seconds - MARGIN_SECONDS[name]) / 60
    models = [part for model in MODELS for part in ("--model", model)]
    return space.python(
        f"{name}-{batch}", "-m", "benchmarks", "ops", "--device", "cuda", *models, "--batch", str(batch),
        "--dtype", "float16", "--rounds", "3", "--min-seconds", "0.02", f"--limit-minutes={minutes:.3f}",
        "--out", str(out), *options, *(["--resume"] if space.resume else []),
    )  # fmt: skip


def _rows(path: Path) -> list[Row]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except FileNotFoundError:
        return []


def _failure(row: Row) -> str:
    return one_line(f"{row['label']} {_place(row)}: {row['status']}: {row['reason']}", width=150)


def _place(row: Row) -> str:
    model = str(row["model"]).removeprefix("efficientnet_")
    return f"{model} {row['layer']} {row['shape']}, batch {row['batch']}"


def summary_lines(rows: Iterable[Row]) -> list[str]:
    """A line for each batch and kind of layer, then the layers that stock PyTorch computes faster."""
    cases: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            cases.setdefault(str(row["case"]), []).append(row)
    groups: dict[tuple, dict[str, list[tuple[float, float | None]]]] = {}
    slower: list[tuple[float, str]] = []
    for members in cases.values():
        stock = min(
            (row for row in members if row["group"] == "stock"),
            key=lambda row: row["median_ms"],
            default=None,
        )
        ours = [row for row in members if row["group"] == "ours"]
        ratios = {row["peer"]: stock["median_ms"] / row["median_ms"] if stock else None for row in ours}
        group = groups.setdefault((-members[0]["batch"], members[0]["step"]), {})
        for row in ours:
            group.setdefault(row["peer"], []).append((row["copy_share"], ratios[row["peer"]]))
        known = [ratio for ratio in ratios.values() if ratio is not None]
        if known and max(known) < 1:
            slower.append(
                (max(known), f"slower: {max(known):.2f}x of {stock['label']}: {_place(members[0])}")
            )
    lines = [
        f"batch {-batch:<4}{step:<22}" + "   ".join(f"{peer} {_cell(found)}" for peer, found in group.items())
        for (batch, step), group in sorted(groups.items())
    ]
    return lines + [text for _, text in sorted(slower)[:MOST_SLOWER]]


def _cell(found: Sequence[tuple[float, float | None]]) -> str:
    shares = [share for share, _ in found]
    ratios = [ratio for _, ratio in found if ratio is not None]
    text = f"{statistics.median(shares):4.0%} of copy (worst {min(shares):.0%})"
    if ratios:
        text += f", {statistics.median(ratios):.2f}x stock (worst {min(ratios):.2f}x)"
    return f"{text}, {len(found)} layers"


OPERATORS = Step("ops", "every layer against eager PyTorch and cuDNN's settings", 450.0, _ops)
COMPILED = Step("compiled", "every layer against torch.compile", 450.0, _compiled)
