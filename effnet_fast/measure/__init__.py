"""How this project measures: alternating rounds, accuracy gate, memory, ceilings and peaks, environment."""

from effnet_fast.measure.accuracy import Verdict, judge_logits
from effnet_fast.measure.ceilings import Ceilings, measure_ceilings
from effnet_fast.measure.difference import (
    SAME_RUN_FLOOR,
    SEPARATE_RUNS_FLOOR,
    Difference,
    Times,
    compare_times,
)
from effnet_fast.measure.environment import describe, device_slug, differences, load_per_core
from effnet_fast.measure.memory import peak_allocated_bytes
from effnet_fast.measure.peaks import Peaks, cpu_peaks
from effnet_fast.measure.timing import (
    CallBatches,
    Candidate,
    LocalCandidate,
    Summary,
    alternate,
    percentile,
    summarize,
)

__all__ = [
    "SAME_RUN_FLOOR",
    "SEPARATE_RUNS_FLOOR",
    "CallBatches",
    "Candidate",
    "Ceilings",
    "Difference",
    "LocalCandidate",
    "Peaks",
    "Summary",
    "Times",
    "Verdict",
    "alternate",
    "compare_times",
    "cpu_peaks",
    "describe",
    "device_slug",
    "differences",
    "judge_logits",
    "load_per_core",
    "measure_ceilings",
    "peak_allocated_bytes",
    "percentile",
    "summarize",
]
