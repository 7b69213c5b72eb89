"""Small integers: every sum is exact in float32, so every backend must give the same bits as float64.

A budget lets small faults through in bfloat16; this does not: a missing tap, a tap twice, a shifted row, a
bias or a residual added in the wrong place or after rounding all change an integer.
"""

from __future__ import annotations

import functools

import pytest
import torch

from effnet_fast.testing import LOW_DTYPES, Expectation, make_args

CONVOLUTIONS = [
    dict(k=1, stride=1, padding=(0, 0, 0, 0), h=7, w=5),
    dict(k=3, stride=1, padding=(1, 1, 1, 1), h=13, w=17),
    dict(k=3, stride=2, padding=(1, 1, 1, 1), h=13, w=14),
    dict(k=3, stride=2, padding=(0, 0, 1, 1), h=14, w=34),
    dict(k=5, stride=1, padding=(2, 2, 2, 2), h=8, w=33),
    dict(k=5, stride=2, padding=(1, 2, 2, 1), h=17, w=13),
    dict(k=7, stride=1, padding=(3, 3, 3, 3), h=9, w=2),
    dict(k=3, stride=3, padding=(2, 0, 1, 4), h=10, w=7),
]
POINTWISE = [
    dict(c=1, o=1, h=1, w=1),
    dict(c=3, o=8, h=2, w=7),
    dict(c=40, o=24, h=7, w=7),
    dict(c=232, o=56, h=7, w=13),
    dict(c=27, o=137, h=5, w=3),
    dict(c=136, o=40, h=13, w=1, without=("gate",)),
    dict(c=64, o=96, h=4, w=8, without=("residual", "bias")),
    dict(c=33, o=17, h=3, w=3, without=("gate", "residual")),
]
CASES = {
    "depthwise_conv": [dict(c=27, **case) for case in CONVOLUTIONS] + [dict(c=40, **CONVOLUTIONS[2])],
    "depthwise_conv_pool": [dict(c=27, **case) for case in CONVOLUTIONS] + [dict(c=136, **CONVOLUTIONS[3])],
    "depthwise_conv_gate": [dict(c=19, **case) for case in CONVOLUTIONS[1:4]],
    "pointwise_conv": POINTWISE,
    "dense_conv": [dict(c=3, o=27, **case) for case in CONVOLUTIONS]
    + [dict(c=24, o=40, **CONVOLUTIONS[1]), dict(c=9, o=8, without=("residual", "bias"), **CONVOLUTIONS[3])],
    "stem_conv": [
        dict(c=3, o=32, layout=layout, without=("mean", "std"), **case)
        for case in CONVOLUTIONS[1:6]
        for layout in ("contiguous", "channels_last")
    ],
    # With three input channels, an expanded value stays below 15 and a filtered one below 256: exact in
    # bfloat16.
    "expand_depthwise": [dict(c=3, m=27, **case) for case in CONVOLUTIONS[1:4]],
    "expand_depthwise_pool": [dict(c=3, m=40, **case) for case in CONVOLUTIONS[1:4]],
    # A power of two of pixels: the mean is exact, too.
    "head_pool": [dict(c=40, o=137, h=4, w=8), dict(c=3, o=8, h=1, w=1), dict(c=320, o=64, h=8, w=8, n=3)],
    "mbconv": [
        dict(c=3, m=27, without=("w1", "b1", "w2", "b2"), residual=True, **CONVOLUTIONS[1]),
        dict(c=3, m=40, o=24, without=("w1", "b1", "w2", "b2"), **CONVOLUTIONS[3]),
        dict(c=24, o=16, without=("w_expand", "b_expand", "w1", "b1", "w2", "b2"), **CONVOLUTIONS[2]),
    ],
    # With three input channels and k 3, an expanded value stays below 111: exact in bfloat16.
    "fused_mbconv": [
        dict(c=3, m=27, n=3, residual=True, **CONVOLUTIONS[1]),
        dict(c=2, m=40, o=24, **CONVOLUTIONS[3]),
        dict(c=3, m=26, o=9, **CONVOLUTIONS[7]),
        dict(c=2, m=9, k=3, stride=2, padding=(0, 1, 1, 0), h=5, w=263, without=("b_expand", "b_project")),
    ],
    # The stem's values stay below 111, their sums below 2^24.
    "stem_block_sums": [
        dict(c=3, m=27, without=("mean", "std"), **CONVOLUTIONS[2]),
        dict(c=3, m=32, d=1, without=("mean", "std"), **CONVOLUTIONS[3]),
    ],
    # With a 1 x 1 stem a filtered value is at most 254, and twice that with its gate: exact in bfloat16.
    "stem_block": [
        dict(c=3, m=27, o=9, without=("mean", "std"), **{**CONVOLUTIONS[0], "stride": 2}),
        dict(c=3, m=40, o=16, without=("mean", "std", "gate"), **CONVOLUTIONS[0]),
    ],
}


@functools.cache
def _expected(op: str, number: int, activation: str, dtype: torch.dtype):
    args = make_args(
        op,
        dtype=dtype,
        exact=True,
        activation=activation,
        expand_activation="relu",
        image_dtype=torch.float32,
        seed=number,
        **CASES[op][number],
    )
    return args, Expectation.of(op, args)


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize(
    ("op", "number"), [(op, number) for op, cases in CASES.items() for number in range(len(cases))]
)
def test_integers_are_exact(op, number, activation, target) -> None:
    for dtype in target.share(LOW_DTYPES, number + 2 * (activation == "relu")):
        args, expectation = _expected(op, number, activation, dtype)
        expectation.assert_exact(target.run(op, args), outputs=("y", "sums"))


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=["f32", "f16", "bf16"])
def test_black_and_white_bytes_pad_with_normalised_zeros(dtype, target) -> None:
    """0 and 255 are exact in every arithmetic, so a tap outside the image that is not zero shows.

    Without mean and std a tap outside is a raw 0 as well; a mean of 1/2 and std of 1/2 tell them apart: -1
    and 1 inside, 0 outside.
    """
    args = make_args(
        "stem_conv", dtype=dtype, exact=True, image_dtype=torch.float32, h=9, w=12, stride=2, c=3
    )
    image = torch.randint(0, 2, args[0].shape, dtype=torch.uint8) * 255
    half = torch.full((3,), 0.5)
    args[0], args[6], args[7] = image, half, half
    args[5] = "identity"
    Expectation.of("stem_conv", args).assert_within(target.run("stem_conv", args))
