"""Empty batches, memory layouts, NaN, 16-bit overflow, and the forms that an argument may take."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from effnet_fast.ops.schemas import ACTIVATIONS, GATES, OPERATORS
from effnet_fast.testing import LAYOUTS, LOW_DTYPES, Expectation, Target, make_args

MAPS = [op for op, row in OPERATORS.items() if next(iter(row.tensors.values())).shape == ("n", "c", "h", "w")]


def _outputs(result):
    return (result,) if isinstance(result, torch.Tensor) else result


def _names(op: str) -> list[str]:
    return [parameter.name for parameter in OPERATORS[op].parameters]


@pytest.mark.parametrize("op", OPERATORS)
def test_empty_batch(op, target) -> None:
    for dtype in LOW_DTYPES:
        args = make_args(op, n=0, dtype=dtype)
        result = target.run(op, args)
        Expectation.of(op, args).assert_within(result)
        assert all(y.shape[0] == 0 for y in _outputs(result))


@pytest.mark.parametrize("op", OPERATORS)
def test_maps_are_channels_last_whatever_comes_in(op, target) -> None:
    for layout in ("contiguous", "channels_last"):
        for y in _outputs(target.run(op, make_args(op, layout=layout))):
            if y.dim() == 4:
                assert y.is_contiguous(memory_format=torch.channels_last)
            else:
                assert y.is_contiguous()


@functools.cache
def _expected(op: str, layout: str, dtype: torch.dtype, channels: int):
    args = make_args(op, layout=layout, dtype=dtype, c=channels, h=11, w=6)
    return args, Expectation.of(op, args)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", MAPS)
def test_layouts(op, layout, target) -> None:
    cases = list(itertools.product((torch.float32, torch.bfloat16), (8, 27)))
    for dtype, channels in target.share(cases, LAYOUTS.index(layout)):
        args, expectation = _expected(op, layout, dtype, channels)
        expectation.assert_within(target.run(op, args))


@pytest.mark.parametrize("op", OPERATORS)
def test_weights_may_have_any_strides(op, target) -> None:
    args = make_args(op, c=8, m=24, s=4)
    expectation = Expectation.of(op, args)
    for i, (name, value) in enumerate(zip(_names(op), args, strict=True)):
        if name not in OPERATORS[op].weights and name not in ("gate", "sums", "mean", "std"):
            continue
        if value is not None and not isinstance(value, str):
            spread = torch.full((*value.shape, 2), float("nan"), dtype=value.dtype)
            spread[..., 0] = value
            args[i] = spread[..., 0]
    expectation.assert_within(target.run(op, args))


@pytest.mark.parametrize("op", OPERATORS)
def test_weights_may_be_channels_last(op, target) -> None:
    args = make_args(op, c=8, m=24, s=4, o=16)
    expectation = Expectation.of(op, args)
    for i, (name, value) in enumerate(zip(_names(op), args, strict=True)):
        if name in OPERATORS[op].weights and value is not None and value.dim() == 4:
            args[i] = value.contiguous(memory_format=torch.channels_last)
    expectation.assert_within(target.run(op, args))


@pytest.mark.parametrize(
    "op",
    [
        "pointwise_conv", "head_pool", "squeeze_excite_gate", "mbconv", "expand_depthwise", "fused_mbconv",
        "stem_block",
    ],
)  # fmt: skip
def test_one_by_one_weights_may_be_matrices(op, target) -> None:
    args = make_args(op)
    expectation = Expectation.of(op, args)
    matrices = [
        value.flatten(1) if name in OPERATORS[op].weights and value.shape[2:] == (1, 1) else value
        for name, value in zip(_names(op), args, strict=True)
    ]
    expectation.assert_within(target.run(op, matrices))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize(
    "op",
    [
        "depthwise_conv", "pointwise_conv", "dense_conv", "stem_conv", "head_pool", "mbconv", "fused_mbconv",
        "stem_block",
    ],
)  # fmt: skip
def test_bias_may_be_in_the_storage_dtype(op, dtype, target) -> None:
    args = [
        value.to(dtype) if name in ("bias", "b_stem", "b_expand", "b_dw", "b_project") else value
        for name, value in zip(_names(op), make_args(op, dtype=dtype), strict=True)
    ]
    Expectation.of(op, args).assert_within(target.run(op, args))


@pytest.mark.parametrize("op", MAPS)
def test_nan_stays_in_its_image(op, target) -> None:
    cases = list(itertools.product(ACTIVATIONS, LOW_DTYPES))
    sizes = {}
    if target.interpreted:  # every activation, one dtype each, unpacked and packed in turns
        cases = list(zip(ACTIVATIONS, itertools.cycle(LOW_DTYPES), strict=False))[target.packed :: 2]
        sizes = dict(h=4, w=5)
    for activation, dtype in cases:
        args = make_args(
            op,
            n=3,
            dtype=dtype,
            activation=activation,
            expand_activation=activation,
            gate="hardsigmoid",
            image_dtype=torch.float32,
            **sizes,
        )
        clean = _outputs(target.run(op, args))
        args[0] = args[0].clone()
        args[0][1] = float("nan")
        for before, after in zip(clean, _outputs(target.run(op, args)), strict=True):
            assert torch.equal(before[[0, 2]], after[[0, 2]])
            # A slot of `sums` may be zero: the total is what must be NaN.
            spoilt = after[1].sum(0) if after.dim() == 3 else after[1]
            assert spoilt.isnan().all(), (activation, dtype)


def test_nan_sums_give_nan_gates_in_their_image(target) -> None:
    for activation, gate in itertools.product(ACTIVATIONS, GATES):
        args = make_args("squeeze_excite_gate", n=3, activation=activation, gate=gate)
        clean = target.run("squeeze_excite_gate", args)
        args[0] = args[0].clone()
        args[0][1] = float("nan")
        spoilt = target.run("squeeze_excite_gate", args)
        assert torch.equal(clean[[0, 2]], spoilt[[0, 2]])
        assert spoilt[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_pooling_does_not_overflow_16_bits(dtype, target) -> None:
    """112 x 112 activations of about 12 sum to 150 000; float16 ends at 65 504, bfloat16 stalls earlier.

    An interpreter gets one tile whose values are larger: its sum alone is beyond float16.
    """
    size, value = (16, 300.0) if target.interpreted else (112, 12.0)
    args = make_args("depthwise_conv_pool", dtype=dtype, n=1, c=8, h=size, w=size, activation="relu")
    args[2] = torch.full((8,), value)
    y, sums = target.run("depthwise_conv_pool", args)
    assert (sums.sum(1) > 65504).all()
    Expectation.of("depthwise_conv_pool", args).assert_within((y, sums))


def test_pooling_sees_values_before_they_are_rounded(target) -> None:
    """1 + 1/512 is 1 in bfloat16; 1024 of them sum to 1026, and to 1024 after rounding."""
    x = torch.ones(1, 8, 32, 32, dtype=torch.bfloat16)
    weight, bias = torch.ones(8, 1, 1, 1, dtype=torch.bfloat16), torch.full((8,), 1 / 512)
    y, sums = target.run("depthwise_conv_pool", [x, weight, bias, 1, (0, 0, 0, 0), "identity"])
    assert (y == 1).all()
    assert torch.equal(sums.sum(1).cpu(), torch.full((1, 8), 1026.0))


def test_gated_input_is_rounded_once_before_the_product(target) -> None:
    """bfloat16: 3 * (1 + 1/256) = 3.01171875 is stored as 3.015625 before it meets a weight of 64."""
    x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.bfloat16)
    weight = torch.full((1, 1), 64.0, dtype=torch.bfloat16)
    args = [x, weight, None, "identity", torch.full((1, 1), 1 + 1 / 256), None]
    assert target.run("pointwise_conv", args).item() == 193.0


@pytest.mark.parametrize("op", OPERATORS)
def test_float64_is_the_reference_under_auto(op) -> None:
    args = make_args(op, dtype=torch.float64, image_dtype=torch.float32)
    result = Target("auto").run(op, args)
    raw = getattr(torch.ops.effnet_fast, op)(*args)
    for y, same in zip(_outputs(result), _outputs(raw), strict=True):
        assert y.dtype == torch.float64
        assert torch.equal(y, same)
