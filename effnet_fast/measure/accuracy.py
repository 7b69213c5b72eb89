"""The accuracy gate of every timing: a candidate that computes something else has no time.

The rule is the error budget of docs/numerics.md, applied to the logits of a whole model. With r64 the logits
of stock PyTorch in float64, and rlow those of stock PyTorch in the storage dtype that is compared, logits y
pass when they are finite and

    max|y - r64| <= 2 max|rlow - r64| + slack max|r64|    and    relL2(y) <= 2 relL2(rlow) + slack

that is: at most twice as wrong as stock PyTorch is itself, and a band for roundings that happen to cancel in
rlow. The band is one rounding to the storage dtype (its eps), or, where that is less, the accumulation in
float32 of the terms of one logit: eps sqrt(terms / 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from effnet_fast.testing import Budget


@dataclass(frozen=True)
class Verdict:
    """Outcome of the gate. `usage` is the larger share of its allowance that an error takes: 1 and less
    passes.
    """

    passed: bool
    usage: float
    max_error: float
    max_allowed: float
    relative_l2: float
    relative_l2_allowed: float
    reason: str = ""


def judge_logits(
    logits: torch.Tensor, *, oracle: torch.Tensor, stock: torch.Tensor, dtype: torch.dtype, terms: int
) -> Verdict:
    """Hold `logits` to the error budget.

    Args:
        logits: [N, classes] of the candidate, any floating dtype.
        oracle: [N, classes] float64, stock PyTorch in float64.
        stock: [N, classes] of stock PyTorch in `dtype`.
        dtype: the storage dtype that candidate and stock share (float32, bfloat16, float16).
        terms: summed for one logit: the classifier's input features.

    Raises:
        ValueError: `oracle` and `stock` differ in shape, or either is not finite (then there is no budget).
        TypeError: `oracle` is not float64.
    """
    if oracle.dtype != torch.float64:
        raise TypeError(f"judge_logits: oracle is {oracle.dtype}; allowed: torch.float64")
    oracle, stock, logits = oracle.cpu(), stock.cpu(), logits.cpu()
    # A 16-bit dtype's eps is far above what float32 accumulation of any number of terms adds.
    budget = Budget(oracle, stock, terms=terms if dtype == torch.float32 else 1, dtype=dtype)
    if logits.shape != oracle.shape:
        return _refused(f"shape {list(logits.shape)} instead of {list(oracle.shape)}")
    if not logits.isfinite().all():
        return _refused("logits are not finite")
    found = budget.compare(logits)
    norm = oracle.norm().item() or 1.0
    errors = f"max error {found.max_error:.3g} of {found.max_allowed:.3g} allowed"
    l2_errors = f"relative L2 {found.l2_error / norm:.3g} of {found.l2_allowed / norm:.3g}"
    return Verdict(
        passed=found.passed,
        usage=found.used,
        max_error=found.max_error,
        max_allowed=found.max_allowed,
        relative_l2=found.l2_error / norm,
        relative_l2_allowed=found.l2_allowed / norm,
        reason="" if found.passed else f"{errors}, {l2_errors}",
    )


def _refused(reason: str) -> Verdict:
    return Verdict(False, math.inf, math.inf, 0.0, math.inf, 0.0, reason)
