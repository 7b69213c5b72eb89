"""Judges the CPU library that it is run with: exit status 0 when all checks pass, 1 with the first failure.

The assertions are those of tests/ops (exact integers, error budgets, sums), on shapes chosen to reach every
loop: ``python -m tests.mutants.oracle FOLDER`` takes the package `effnet_fast` from FOLDER.
"""

from __future__ import annotations

import sys

sys.path.insert(0, sys.argv[1])

import torch

from effnet_fast.testing import Expectation, Target, make_args

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
]


def main() -> int:
    torch.use_deterministic_algorithms(True)  # outputs start as NaN
    target = Target("cpu")
    for exact, cases in ((True, EXACT), (False, BUDGET)):
        for op, case in cases:
            for dtype in (torch.float32, torch.bfloat16):
                image = {"image_dtype": torch.uint8} if op == "stem_conv" else {}
                args = make_args(op, dtype=dtype, exact=exact, **case, **image)
                expectation = Expectation.of(op, args)
                # Twice: a fault may hide in what the first call left behind.
                for _ in range(2):
                    result = target.run(op, args)
                    try:
                        (expectation.assert_exact if exact else expectation.assert_within)(result)
                    except AssertionError as error:
                        sys.stdout.write(f"caught by {op} {dtype}: {error}\n")
                        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
