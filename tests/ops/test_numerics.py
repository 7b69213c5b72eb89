"""Every operator on every target and dtype, within the budget of the numerics contract."""

from __future__ import annotations

import functools

import pytest
import torch

from effnet_fast.ops.schemas import ACTIVATIONS, OPERATORS
from effnet_fast.testing import LOW_DTYPES, Expectation, make_args

# Layers of EfficientNet-B0 and B4 with the batch (and the largest maps) cut down, then shapes that no vector,
# panel or tile fits.
DEPTHWISE = {
    "b0-s0": dict(n=1, c=32, h=56, w=56, k=3),
    "b0-s1": dict(n=1, c=96, h=28, w=28, k=3, stride=2, padding=(0, 0, 1, 1)),
    "b0-s3": dict(n=2, c=240, h=14, w=14, k=3, stride=2),
    "b0-s4": dict(n=1, c=480, h=14, w=14, k=5),
    "b0-s6": dict(n=2, c=1152, h=7, w=7, k=3),
    "b4-s2": dict(n=1, c=192, h=23, w=24, k=5, stride=2, padding=(1, 1, 2, 2)),
    "pixel": dict(n=3, c=1, h=1, w=1, k=3),
    "kernel-above-map": dict(n=1, c=3, h=2, w=2, k=7),
    "row": dict(n=2, c=27, h=1, w=57, k=5, activation="relu"),
    "column": dict(n=1, c=40, h=57, w=2, k=3, stride=2, activation="hardswish"),
    "odd": dict(n=2, c=136, h=13, w=7, k=5, stride=2, padding=(0, 3, 2, 1), activation="relu6"),
    "wide-kernel": dict(n=1, c=24, h=13, w=13, k=9, stride=3, padding=(4, 4, 4, 4)),
    "k1": dict(n=1, c=8, h=7, w=7, k=1, stride=2, padding=(0, 0, 0, 0)),
    "valid": dict(n=1, c=19, h=13, w=9, k=3, padding=(0, 0, 0, 0), without=("bias",)),
}
POINTWISE = {
    "b0-expand": dict(n=2, c=40, h=14, w=14, o=240, without=("gate", "residual")),
    "b0-project": dict(n=2, c=672, h=7, w=7, o=192, activation="identity"),
    "b0-first": dict(n=1, c=32, h=28, w=28, o=16, activation="identity", without=("residual",)),
    "b4-head": dict(n=1, c=448, h=6, w=6, o=200, without=("gate", "residual")),
    "one": dict(n=1, c=1, h=1, w=1, o=1),
    "three": dict(n=3, c=3, h=2, w=7, o=8, activation="relu", without=("bias",)),
    "odd": dict(n=2, c=27, h=13, w=13, o=137, activation="hardswish"),
    "one-pixel": dict(n=5, c=136, h=1, w=1, o=27, activation="relu6", without=("residual",)),
}
CASES = {
    "depthwise_conv": DEPTHWISE,
    "depthwise_conv_pool": DEPTHWISE,
    "depthwise_conv_gate": {
        "b0-s1": dict(n=2, c=96, h=28, w=28, k=3, s=4, stride=2, padding=(0, 0, 1, 1)),
        "b0-s5": dict(n=1, c=672, h=14, w=14, k=5, s=28, stride=2),
        "odd": dict(n=3, c=27, h=13, w=7, k=5, s=7, se_activation="relu", gate="hardsigmoid"),
        "pixel": dict(n=1, c=8, h=1, w=1, k=3, s=1, without=("b1", "b2")),
    },
    "pointwise_conv": POINTWISE,
    "dense_conv": {
        "v2-s1": dict(n=1, c=24, h=14, w=14, o=96, k=3, stride=2, padding=(0, 0, 1, 1),
                      without=("residual",)),
        "v2-s0": dict(n=2, c=24, h=13, w=13, o=24, k=3),
        "odd": dict(n=1, c=27, h=7, w=13, o=35, k=5, stride=2, padding=(3, 0, 1, 2), activation="relu6"),
        "kernel-above-map": dict(n=2, c=3, h=2, w=1, o=8, k=7, activation="hardswish"),
        "k1": dict(n=1, c=8, h=2, w=2, o=1, k=1, activation="identity", without=("bias",)),
    },
    "stem_conv": {
        "b0": dict(n=1, c=3, h=57, w=56, o=32, k=3, stride=2),
        "b0-same": dict(n=2, c=3, h=32, w=32, o=40, k=3, stride=2, padding=(0, 0, 1, 1)),
        "float": dict(n=1, c=3, h=13, w=32, o=24, k=3, stride=2, image_dtype=torch.float32,
                      without=("mean", "std")),
        "float-normalised": dict(n=1, c=3, h=17, w=9, o=32, k=3, stride=2, image_dtype=torch.float32),
        "plain-bytes": dict(n=1, c=3, h=9, w=9, o=8, k=3, stride=2, without=("mean", "std")),
        "odd": dict(n=2, c=4, h=7, w=1, o=27, k=5, stride=3, padding=(2, 1, 3, 4), activation="relu"),
        "contiguous": dict(n=2, c=3, h=16, w=17, o=32, k=3, stride=2, layout="contiguous"),
    },
    "squeeze_excite_gate": {
        "b0-s0": dict(n=2, c=32, h=112, w=112, s=8),
        "b0-s6": dict(n=8, c=1152, h=7, w=7, s=48),
        "odd": dict(n=3, c=27, h=17, w=33, s=7, activation="relu", gate="hardsigmoid"),
        "one": dict(n=1, c=1, h=1, w=1, s=1, activation="hardswish", without=("b1", "b2")),
    },
    "expand_depthwise": {
        "b0-s3": dict(n=1, c=40, h=14, w=14, m=240, k=3, stride=2),
        "odd": dict(n=2, c=3, h=7, w=5, m=27, k=5, padding=(2, 1, 3, 4), expand_activation="relu",
                    activation="relu6"),
    },
    "expand_depthwise_pool": {
        "b0-s4": dict(n=1, c=80, h=14, w=14, m=480, k=5),
        "odd": dict(n=2, c=3, h=17, w=5, m=27, k=3, stride=2, without=("b_expand", "b_dw")),
    },
    "head_pool": {
        "b0": dict(n=2, c=320, h=7, w=7, o=1280),
        "b4": dict(n=1, c=448, h=12, w=12, o=256),
        "odd": dict(n=3, c=27, h=13, w=1, o=137, activation="hardswish", without=("bias",)),
        "one": dict(n=1, c=1, h=1, w=1, o=1, activation="relu"),
    },
    "mbconv": {
        "b0-s2": dict(n=1, c=40, h=28, w=28, m=240, s=10, k=5, residual=True),
        "b0-s1": dict(n=2, c=16, h=28, w=28, m=96, s=4, o=24, k=3, stride=2, padding=(0, 0, 1, 1)),
        "b0-s0": dict(n=1, c=32, h=28, w=28, s=8, o=16, k=3, without=("w_expand", "b_expand")),
        "lite": dict(n=2, c=24, h=13, w=7, m=144, k=5, activation="relu6", residual=True,
                     without=("w1", "b1", "w2", "b2")),
        "odd": dict(n=3, c=7, h=5, w=13, m=27, s=3, o=9, k=3, activation="hardswish", se_activation="relu",
                    gate="hardsigmoid"),
    },
    "fused_mbconv": {
        "v2-s1": dict(n=1, c=24, h=14, w=14, m=96, o=48, k=3, stride=2, padding=(0, 0, 1, 1)),
        "v2-s2": dict(n=1, c=64, h=8, w=9, m=256, k=3, residual=True),
        "odd": dict(n=3, c=7, h=5, w=13, m=27, o=9, k=5, stride=2, padding=(3, 0, 1, 2),
                    activation="hardswish"),
        "wide": dict(n=1, c=2, h=3, w=135, m=33, o=3, k=3, without=("b_expand", "b_project")),
        "kernel-above-map": dict(n=2, c=3, h=2, w=1, m=8, k=7, activation="relu6", residual=True),
        "k1": dict(n=1, c=8, h=2, w=2, m=3, o=1, k=1, activation="identity"),
    },
    "stem_block_sums": {
        "b0": dict(n=1, c=3, h=57, w=56, m=32, k=3, stride=2),
        "float": dict(n=2, c=3, h=13, w=34, m=24, k=3, stride=2, padding=(0, 0, 1, 1), layout="contiguous",
                      image_dtype=torch.float32, without=("mean", "std")),
        "odd": dict(n=2, c=4, h=7, w=9, m=27, k=5, d=5, stride=3, padding=(2, 1, 3, 4), activation="relu",
                    without=("b_stem", "b_dw")),
    },
    "stem_block": {
        "b0": dict(n=1, c=3, h=57, w=56, m=32, o=16, k=3, stride=2),
        "lite0": dict(n=2, c=3, h=32, w=13, m=32, o=16, k=3, stride=2, padding=(0, 0, 1, 1),
                      activation="relu6", without=("gate",)),
        "odd": dict(n=2, c=4, h=7, w=9, m=27, o=5, k=5, d=5, stride=3, padding=(2, 1, 3, 4),
                    activation="hardswish", without=("b_stem", "b_dw", "b_project")),
    },
}  # fmt: skip


# An interpreter gets maps of two tiles by two at the most, and no more channels than two blocks and a part.
LARGEST = dict(h=19, w=23, c=136, m=136)


@functools.cache
def _expected(op: str, case: str, dtype: torch.dtype, reduced: bool):
    sizes = dict(CASES[op][case])
    if reduced:
        sizes.update(
            {letter: min(sizes[letter], most) for letter, most in LARGEST.items() if letter in sizes}
        )
    args = make_args(op, dtype=dtype, **sizes)
    return args, Expectation.of(op, args)


def test_every_operator_has_cases() -> None:
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, cases in CASES.items() for case in cases])
def test_result_is_within_budget(op, case, target) -> None:
    for dtype in target.share(LOW_DTYPES, list(CASES[op]).index(case)):
        # Matrix products are quick there, too.
        reduced = target.interpreted and "k" in CASES[op][case]
        args, expectation = _expected(op, case, dtype, reduced)
        expectation.assert_within(target.run(op, args))


@functools.cache
def _expected_of_activation(op: str, activation: str):
    args = make_args(op, activation=activation, n=1, seed=1)
    names = ("w_expand",) if op == "fused_mbconv" else ("weight", "w_dw", "w1")
    weight = next(i for i, p in enumerate(OPERATORS[op].parameters) if p.name in names)
    args[weight] = args[weight] * 8
    return args, Expectation.of(op, args)


@pytest.mark.parametrize("op", [op for op, row in OPERATORS.items() if "activation" in row.arguments])
def test_every_activation_on_values_that_reach_its_ends(op, target) -> None:
    for activation in ACTIVATIONS:
        args, expectation = _expected_of_activation(op, activation)
        expectation.assert_within(target.run(op, args))
