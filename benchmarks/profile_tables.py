"""The tables of `benchmarks profile`: every step, every block, every kind of step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from benchmarks.ideal import share_of_peak, share_text
from benchmarks.profile import GROUPS, StepTime


def ideal_sum(steps: Sequence[StepTime]) -> float | None:
    """Least milliseconds of all `steps`, in which the host has none; None where the peaks are not known."""
    known = [step.ideal_ms for step in steps if step.ideal_ms is not None]
    return sum(known) if known else None


def group_rows(steps: Sequence[StepTime]) -> list[dict[str, object]]:
    """Time, multiply-adds, their shares and the share of the peak for each group that occurs."""
    return _summed(steps, "group", lambda step: step.group, GROUPS)


def block_rows(steps: Sequence[StepTime]) -> list[dict[str, object]]:
    """The same for each block, in the order of the network; the host is the last."""
    return _summed(steps, "block", lambda step: step.block, [step.block for step in steps])


def _summed(
    steps: Sequence[StepTime], column: str, key: Callable[[StepTime], str], order: Sequence[str]
) -> list[dict[str, object]]:
    total = sum(step.milliseconds for step in steps)
    total_gmacs = sum(step.gmacs for step in steps)
    rows = []
    for name in dict.fromkeys(order):
        members = [step for step in steps if key(step) == name]
        if members:
            milliseconds, gmacs = sum(s.milliseconds for s in members), sum(s.gmacs for s in members)
            ideal = ideal_sum(members)
            rows.append(
                {
                    column: name,
                    "steps": len(members),
                    "milliseconds": milliseconds,
                    "share": milliseconds / total,
                    "gmacs_share": gmacs / total_gmacs,
                    "gmacs_per_second": gmacs / (milliseconds / 1e3) if milliseconds else 0.0,
                    "ideal_ms": ideal,
                    "of_peak": share_of_peak(ideal, milliseconds),
                }
            )
    return rows


def groups_table(title: str, steps: Sequence[StepTime]) -> Table:
    """One line for each kind of step."""
    return _sums_table(title, steps, "group", group_rows(steps))


def blocks_table(steps: Sequence[StepTime]) -> Table:
    """One line for each block, of however many steps it is made."""
    return _sums_table("blocks", steps, "block", block_rows(steps))


def _sums_table(
    title: str, steps: Sequence[StepTime], column: str, rows: Sequence[dict[str, object]]
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(column)
    for heading in ("steps", "ms", "share", "of multiply-adds", "GMAC/s", "ideal ms", "of peak"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row[column],
            str(row["steps"]),
            f"{row['milliseconds']:.3f}",
            f"{row['share']:.1%}",
            f"{row['gmacs_share']:.1%}",
            f"{row['gmacs_per_second']:.1f}" if row["gmacs_per_second"] else "-",
            ideal_text(row["ideal_ms"]),
            share_text(row["of_peak"]),
        )
    total, ideal = sum(step.milliseconds for step in steps), ideal_sum(steps)
    table.add_section()
    table.add_row(
        "all",
        str(len(steps)),
        f"{total:.3f}",
        "",
        "",
        f"{sum(s.gmacs for s in steps) / total * 1e3:.1f}",
        ideal_text(ideal),
        share_text(share_of_peak(ideal, total)),
    )
    return table


def steps_table(steps: Sequence[StepTime]) -> Table:
    """One line for each step."""
    table = Table(title="steps", title_justify="left")
    for heading in ("step", "operator", "shape"):
        table.add_column(heading, no_wrap=True)
    for heading in ("passes", "ms", "share", "GMAC/s", "ideal ms", "of peak"):
        table.add_column(heading, justify="right")
    total = sum(step.milliseconds for step in steps)
    for step in steps:
        rate = step.gmacs / step.milliseconds * 1e3 if step.milliseconds else 0.0
        table.add_row(
            step.name,
            step.operator,
            step.shape,
            str(step.passes),
            f"{step.milliseconds:.3f}",
            f"{step.milliseconds / total:.1%}",
            f"{rate:.1f}" if rate else "-",
            ideal_text(step.ideal_ms),
            share_text(share_of_peak(step.ideal_ms, step.milliseconds)),
        )
    return table


def ideal_text(milliseconds: float | None) -> str:
    """What a column "ideal ms" shows."""
    return "-" if milliseconds is None else f"{milliseconds:.3f}"
