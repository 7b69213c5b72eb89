"""The rows of a sweep's result file: one peer in one case."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Case, phi_of
from benchmarks.peers import PEERS
from effnet_fast.measure import Summary, Verdict, percentile

#: Statuses of a row. Only "ok" has a time.
OK, FAIL, ERROR, UNAVAILABLE, MEMORY = "ok", "FAIL", "error", "unavailable", "out of memory"


def new_row(case: Case, name: str) -> dict[str, object]:
    """A row without result."""
    peer = PEERS[name]
    return {
        "case": case.key,
        **case.record(),
        "phi": phi_of(case.model),
        "peer": name,
        "label": peer.label,
        "group": peer.group,
        "status": ERROR,
        "reason": "",
    }


def verdict_columns(verdict: Verdict) -> dict[str, object]:
    """Columns of the gate; infinities, which JSON has not, as None."""

    def finite(value: float) -> float | None:
        return float(f"{value:.4g}") if abs(value) != float("inf") and value == value else None

    return {
        "error_usage": finite(verdict.usage),
        "max_error": finite(verdict.max_error),
        "max_allowed": finite(verdict.max_allowed),
        "relative_l2": finite(verdict.relative_l2),
        "relative_l2_allowed": finite(verdict.relative_l2_allowed),
    }


def milliseconds(seconds: float) -> float:
    """`seconds` as every column has them: to the nanosecond, since a layer of one image takes microseconds.

    One rounding for all, because a finer median could be less than a coarser 20th percentile.
    """
    return round(seconds * 1e3, 6)


def time_columns(summary: Summary, batch: int) -> dict[str, object]:
    """Columns of the timing."""
    return {
        "images_per_second": round(batch / summary.median, 3),
        "median_ms": milliseconds(summary.median),
        "p20_ms": milliseconds(summary.p20),
        "p80_ms": milliseconds(summary.p80),
        "best_ms": milliseconds(summary.best),
        "spread": round(summary.spread, 4),
        "rounds": summary.rounds,
        "calls": summary.calls,
    }


def latency_columns(seconds: Sequence[float]) -> dict[str, object]:
    """Columns of the distribution of single calls, over all rounds."""
    shares = {"median_ms": 0.5, "p20_ms": 0.2, "p80_ms": 0.8, "p99_ms": 0.99}
    return {name: milliseconds(percentile(seconds, share)) for name, share in shares.items()}
