"""Calls of the emulated CUDA kernels that reach every kind of them: what the oracle runs and looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.emulation import (
    test_depthwise_conv,
    test_expand_depthwise,
    test_head_pool,
    test_pointwise_conv,
    test_squeeze_excite_gate,
    test_stem_block,
    test_stem_conv,
)

SYMMETRIC = dict(padding=(1, 1, 1, 1))
EXACT = [
    # Two chunks, the second one partial; more padding to the left than above; odd columns and rows.
    (
        "expand_depthwise_pool",
        dict(c=24, m=56, k=3, stride=1, padding=(1, 2, 1, 0), h=18, w=13, n=2, activation="relu",
             expand_activation="relu"),
    ),
    (
        "expand_depthwise_pool",
        dict(c=16, m=40, k=5, stride=2, padding=(1, 2, 2, 1), h=21, w=15, n=1, activation="relu",
             expand_activation="identity"),
    ),
    # More padding to the left than above; neither rows nor columns are whole stages or groups.
    (
        "depthwise_conv_pool",
        dict(c=24, k=3, stride=2, padding=(1, 2, 2, 1), h=18, w=13, n=2, activation="identity"),
    ),
    # So many small maps that a block has several.
    ("depthwise_conv_pool", dict(c=8, k=5, padding=(2, 2, 2, 2), h=5, w=5, n=33, activation="relu")),
    ("depthwise_conv_pool", dict(c=27, k=3, **SYMMETRIC, h=7, w=9, n=2, activation="relu")),
    # A sum of three pieces, which ends inside a step of 16; images of an incomplete second group of rows.
    ("pointwise_conv", dict(c=136, o=72, h=11, w=7, n=2, activation="relu")),
    ("pointwise_conv", dict(c=27, o=10, h=5, w=3, n=3, activation="relu")),
    # A handful of rows of float32: a sum of two steps, and a second block of rows.
    (
        "pointwise_conv",
        dict(c=1032, o=24, h=1, w=1, n=9, activation="relu", without=("gate", "residual")),
    ),
    # A second column of the widest tiles, of which half the warps have none, and a third.
    ("pointwise_conv", dict(c=72, o=320, h=5, w=5, n=6, activation="relu")),
    # A mean of 128 rows or 16 is exact.
    ("head_pool", dict(c=136, o=40, h=16, w=8, n=3, activation="relu")),
    ("head_pool", dict(c=27, o=10, h=4, w=4, n=2, activation="relu")),
    # Two chunks of channels, four tiles, of which all but one end behind the map.
    (
        "stem_block_sums",
        dict(c=3, m=40, k=3, stride=2, padding=(0, 1, 1, 0), h=37, w=35, n=2, activation="relu",
             without=("mean", "std")),
    ),
]  # fmt: skip
BUDGET = [
    ("depthwise_conv_pool", dict(c=24, k=3, **SYMMETRIC, h=33, w=19, n=2)),
    ("depthwise_conv_gate", dict(c=24, s=3, k=3, **SYMMETRIC, h=20, w=33, n=2)),
    ("stem_conv", dict(c=3, o=40, k=3, stride=2, **SYMMETRIC, h=21, w=19)),
    ("stem_conv", dict(c=3, o=10, k=3, stride=2, **SYMMETRIC, h=9, w=11)),
    ("stem_block_sums", dict(c=3, m=8, k=3, stride=2, **SYMMETRIC, h=21, w=19, n=2)),
    ("stem_block", dict(c=3, m=40, o=16, k=3, stride=2, **SYMMETRIC, h=37, w=35, n=2)),
    # An expanded pixel beside the map that is not zero is far more than rounding: SiLU of a bias of 0.3.
    ("expand_depthwise_pool", dict(c=24, m=56, k=3, **SYMMETRIC, h=13, w=12, n=2)),
    ("expand_depthwise_pool", dict(c=16, m=40, k=5, padding=(2, 2, 2, 2), h=9, w=17, n=1)),
    ("head_pool", dict(c=40, o=48, h=7, w=7, n=3)),
    ("squeeze_excite_gate", dict(c=40, s=5, h=20, w=40, n=3)),
    ("squeeze_excite_gate", dict(c=27, s=5, h=33, w=9, n=3)),
    ("squeeze_excite_gate", dict(c=1160, s=5, h=7, w=7, n=1)),
]


def expand_depthwise_results(op: str, args: list) -> Iterator[Any]:
    """Of tiles as a GPU would take them, and of ones that end behind the map, more than rows of sums."""
    if args[0].dtype == torch.float32:
        return  # composed of two other operators
    for chip, multiprocessors in (("sm_90", 1), ("sm_80", 132)):
        yield test_expand_depthwise.run(op, args, multiprocessors=multiprocessors, chip=chip)
    shape, silu = (args[4].shape[2], args[6]), args[8] == "silu"  # kernel and stride
    for place, variant in enumerate(test_expand_depthwise.VARIANTS):
        if variant[:2] == shape and (silu or variant in test_expand_depthwise.ANY_ACTIVATION):
            yield test_expand_depthwise.run(op, args, tiles=(place, 1, 5))


def results(op: str, args: list) -> Iterator[Any]:
    """Those of every tile, or of a GPU with one multiprocessor and with many."""
    if op == "expand_depthwise_pool":
        yield from expand_depthwise_results(op, args)
        return
    if op == "pointwise_conv":
        low = args[0].dtype != torch.float32 and all(size % 8 == 0 for size in args[1].shape[:2])
        # Long sums' weights are never resident: they would not fit.
        resident = test_pointwise_conv.RESIDENT if args[0].shape[1] <= 512 else ()
        for tile in (*((*resident, *test_pointwise_conv.STAGED) if low else ()), "fma"):
            yield test_pointwise_conv.run(args, tile=tile, multiprocessors=1)
        if args[0].dtype == torch.float32 and args[4] is None and args[0].shape[1] % 4 == 0:
            yield test_pointwise_conv.run(args, tile="rows")
    elif op == "head_pool":
        for tile in test_head_pool.TILES:
            yield test_head_pool.run(args, tile=tile)
    elif op in test_stem_block.OPS:
        yield test_stem_block.run(op, args)
    else:
        for multiprocessors in (1, 132):
            if op == "stem_conv":
                yield test_stem_conv.run(args, multiprocessors=multiprocessors)
            elif op == "squeeze_excite_gate":
                yield test_squeeze_excite_gate.run(args, multiprocessors=multiprocessors)
            else:
                yield test_depthwise_conv.run(op, args, multiprocessors=multiprocessors)


def gated_values_are_rounded() -> None:
    for tile in (test_pointwise_conv.TILES[0], "fma"):
        test_pointwise_conv.test_gated_values_are_rounded_to_storage(tile, torch.bfloat16, 0)


def pixels_are_rounded() -> None:
    for channels in (8, 20):  # on tensor cores and without
        test_stem_conv.test_a_pixel_is_rounded_before_it_is_multiplied(channels, torch.bfloat16)


# A budget takes a value that is not rounded where the contract says so for a better one.
ROUNDINGS = {"pointwise_conv": gated_values_are_rounded, "stem_conv": pixels_are_rounded}
