"""The same call gives the same bits: twice, on one thread and on two, into given memory and into its own."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops import handle
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.ops.validation import check
from effnet_fast.testing import LOW_DTYPES, make_args

SHAPES = [dict(n=3, c=40, h=14, w=19, m=48), dict(n=1, c=136, h=33, w=17, m=136, k=5, stride=2)]


def _assert_same_bits(first, second) -> None:
    first = (first,) if isinstance(first, torch.Tensor) else first
    second = (second,) if isinstance(second, torch.Tensor) else second
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=["small", "odd"])
@pytest.mark.parametrize("op", OPERATORS)
def test_bits_do_not_depend_on_run_or_threads(op, shape, compiled_target, threads) -> None:
    for dtype in LOW_DTYPES:
        args = make_args(op, dtype=dtype, **shape)
        threads(2)
        result = compiled_target.run(op, args)
        _assert_same_bits(result, compiled_target.run(op, args))
        # The reference's sums are ATen's, which promises nothing across thread counts.
        if compiled_target.backend != "reference":
            threads(1)
            _assert_same_bits(result, compiled_target.run(op, args))


@pytest.mark.parametrize("op", OPERATORS)
def test_into_given_memory_is_the_same_computation(op, target) -> None:
    row = OPERATORS[op]
    args = make_args(op, n=2, c=24, h=5 if target.interpreted else 17, w=9, device=target.device)
    result = target.run(op, args)
    outputs = allocate(row, *check(row, "", args))
    if target.packed:
        returned = handle(op, "packed_into", target.backend)(*outputs, *target.pack_arguments(op, args))
    else:
        returned = handle(op, "into", target.backend)(*outputs, *args)
    assert returned is None
    _assert_same_bits(result, outputs)
