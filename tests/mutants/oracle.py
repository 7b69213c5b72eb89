"""Judges the kernels of a package: exit status 0 when all checks pass, 1 with the first failure.

The assertions are those of tests/ops (exact integers, error budgets, sums), on shapes chosen to reach every
loop: ``python -m tests.mutants.oracle FOLDER BACKEND OPERATOR`` takes the package `effnet_fast` from FOLDER
and looks at operators whose name begins with OPERATOR, which may be empty. The backend "emulation" is the
CUDA kernels, emulated, from under EFFNET_FAST_EMULATION_ROOT; an error of the emulator catches a fault, too.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch

from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Expectation, Target, make_args
from tests.emulation.emulator import EmulationError
from tests.mutants import emulated

EXACT = [
    (
        "depthwise_conv_pool",
        dict(c=27, k=3, stride=1, padding=(1, 1, 1, 1), h=18, w=9, n=2, activation="relu"),
    ),
    (
        "depthwise_conv_pool",
        dict(c=40, k=5, stride=2, padding=(1, 2, 2, 1), h=17, w=13, n=2, activation="identity"),
    ),
    ("pointwise_conv", dict(c=27, o=137, h=5, w=3, n=3, activation="relu")),
    ("pointwise_conv", dict(c=40, o=24, h=7, w=7, n=2, without=("residual",), activation="identity")),
    ("dense_conv", dict(c=3, o=27, k=3, stride=2, padding=(0, 1, 1, 0), h=33, w=14, activation="relu")),
    (
        "expand_depthwise_pool",
        dict(
            c=3, m=27, k=3, padding=(1, 1, 1, 1), h=9, w=7, n=2, activation="relu", expand_activation="relu"
        ),
    ),
    ("head_pool", dict(c=40, o=137, h=4, w=8, n=3, activation="relu")),
]
BUDGET = [
    ("depthwise_conv_pool", dict(c=24, k=3, padding=(1, 1, 1, 1), h=33, w=19, n=2)),
    ("depthwise_conv_gate", dict(c=27, s=3, k=5, padding=(2, 2, 2, 2), h=9, w=11)),
    ("stem_conv", dict(c=3, o=32, k=3, stride=2, padding=(1, 1, 1, 1), h=21, w=19, layout="contiguous")),
    ("head_pool", dict(c=40, o=50, h=7, w=7, n=2)),
    ("squeeze_excite_gate", dict(c=27, s=5, h=20, w=40)),
    ("pointwise_conv", dict(c=400, o=24, h=5, w=7, n=2, activation="identity")),
]
# A whole block is one kernel on the CPU alone: small and large maps (the gate scales one operand or the
# other), several images on two threads, channels that no vector divides, sums of more than one part.
BLOCKS_EXACT = [
    (
        "mbconv",
        dict(c=3, m=27, k=3, padding=(1, 1, 1, 1), h=9, w=17, n=3, activation="relu", residual=True,
             without=("w1", "b1", "w2", "b2")),
    ),
    # Tiles of several rows, and two tiles a row; several images on two threads.
    ("fused_mbconv", dict(c=3, m=27, k=3, h=9, w=17, n=5, activation="relu", residual=True)),
    (
        "fused_mbconv",
        dict(c=2, m=9, o=5, k=3, stride=2, padding=(0, 1, 1, 0), h=5, w=263, n=3, activation="relu"),
    ),
]  # fmt: skip
BLOCKS_BUDGET = [
    ("mbconv", dict(c=16, m=96, s=4, o=24, k=3, stride=2, padding=(0, 0, 1, 1), h=24, w=28, n=3)),
    ("mbconv", dict(c=27, m=120, s=5, k=5, padding=(2, 2, 2, 2), h=5, w=5, n=6, residual=True)),
    ("mbconv", dict(c=40, m=400, s=10, k=3, padding=(1, 1, 1, 1), h=3, w=5, n=3, o=48)),
]
# One image less and no fused expansion: Python stands in for a GPU, and there is no kernel for the latter.
TRITON_EXACT = [(op, case) for op, case in EXACT if op != "expand_depthwise_pool"] + [
    ("pointwise_conv", dict(c=136, o=24, h=3, w=3, n=1, without=("gate", "residual"), activation="identity")),
]
TRITON_BUDGET = [
    ("depthwise_conv_pool", dict(c=8, k=3, padding=(1, 1, 1, 1), h=9, w=6, n=1)),
    *(pair for pair in BUDGET if pair[0] not in ("depthwise_conv_pool", "depthwise_conv_gate")),
    ("pointwise_conv", dict(c=48, o=16, h=3, w=3, n=2)),
    ("squeeze_excite_gate", dict(c=27, s=5, h=17, w=9, n=1)),
    ("dense_conv", dict(c=3, o=8, k=3, padding=(1, 1, 1, 1), h=5, w=6)),
]


def cases(backend: str) -> tuple[tuple[bool, list], ...]:
    """(exact or within the budget, cases) in order; quick ones of every kernel."""
    if backend == "triton":
        return (True, TRITON_EXACT), (False, TRITON_BUDGET)
    if backend == "emulation":
        return (True, emulated.EXACT), (False, emulated.BUDGET)
    return (True, EXACT + BLOCKS_EXACT), (False, BUDGET + BLOCKS_BUDGET)


def results(backend: str, op: str, args: list) -> Iterator[Any]:
    if backend == "emulation":
        yield from emulated.results(op, args)
        return
    target = Target(backend)
    # Twice: a fault may hide in what the first call left behind.
    for _ in range(1 if target.interpreted else 2):
        yield target.run(op, args)


def look_at(backend: str, op: str, case: dict, dtype: torch.dtype, exact: bool) -> None:
    """AssertionError or EmulationError for a wrong kernel."""
    # Of exact arguments, an image has negative values.
    reads_image = any(spec.kind == "image" for spec in OPERATORS[op].tensors.values())
    image = {"image_dtype": torch.uint8} if reads_image and not exact else {}
    args = make_args(op, dtype=dtype, exact=exact, **case, **image)
    expectation = Expectation.of(op, args)
    for result in results(backend, op, args):
        (expectation.assert_exact if exact else expectation.assert_within)(result)


def checks(backend: str, only: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is looked at, in order, and the function that does."""
    for exact, chosen in cases(backend):
        for op, case in (pair for pair in chosen if pair[0].startswith(only)):
            for dtype in (torch.float32, torch.bfloat16):
                yield f"{op} {dtype}", functools.partial(look_at, backend, op, case, dtype, exact)
    if backend == "emulation":
        for op, check in emulated.ROUNDINGS.items():
            if op.startswith(only):
                yield f"{op} rounding", check


def main() -> int:
    torch.use_deterministic_algorithms(True)  # outputs start as NaN
    _, _, backend, only = sys.argv
    for what, check in checks(backend, only):
        try:
            check()
        except (AssertionError, EmulationError) as error:
            sys.stdout.write(f"caught by {what}: {type(error).__name__}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
