"""The oracle's oracle: wrong implementations that the budget or the exact test must refuse."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops import reference
from effnet_fast.testing import LOW_DTYPES, Budget, Expectation, make_args

DEPTHWISE = dict(n=2, c=24, h=20, w=18, k=3)
POINTWISE = dict(n=2, c=2048, o=8, h=6, w=6)


def _depthwise(x, weight, bias, stride, padding, activation):
    return reference.depthwise_conv_pool(x, weight, bias, stride, padding, activation)


def _last_row_skipped(*args):
    y, sums = _depthwise(*args)
    y[:, :, -1] = 0
    return y, sums


def _padding_off_by_one(x, weight, bias, stride, padding, activation):
    top, left, bottom, right = padding
    return _depthwise(x, weight, bias, stride, (top - 1, left, bottom + 1, right), activation)


def _bias_dropped(x, weight, bias, *rest):
    return _depthwise(x, weight, None, *rest)


def _unwritten_tail(*args):
    y, sums = _depthwise(*args)
    y[-1, -3:] = float("nan")
    return y, sums


def _pool_after_rounding_in_16_bits(*args):
    y, _ = _depthwise(*args)
    return y, y.to(torch.bfloat16).cumsum(2)[:, :, -1].cumsum(2)[:, :, -1].float()[:, None]


def _one_tile_missing(*args):
    y, sums = _depthwise(*args)
    sums[:, -1] = 0
    return y, sums


def _stale_accumulator(*args):
    y, sums = _depthwise(*args)
    sums[1] += sums[0]
    return y, sums


def _kernel_transposed(x, weight, *rest):
    return _depthwise(x, weight.transpose(2, 3).contiguous(), *rest)


def _assert_refused(op, right, wrong, dtype, sizes) -> None:
    """By the budget on random values, or by the exact test on integers; what is right passes both."""
    random = make_args(op, dtype=dtype, **sizes)
    integers = make_args(op, dtype=dtype, exact=True, **{**sizes, "activation": "relu"})
    within, exact = Expectation.of(op, random), Expectation.of(op, integers)
    within.assert_within(right(*random))
    exact.assert_exact(right(*integers))
    with pytest.raises(AssertionError):  # noqa: PT012
        within.assert_within(wrong(*random))
        exact.assert_exact(wrong(*integers))


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(
    "wrong",
    [
        _last_row_skipped,
        _padding_off_by_one,
        _bias_dropped,
        _unwritten_tail,
        _pool_after_rounding_in_16_bits,
        _one_tile_missing,
        _stale_accumulator,
        _kernel_transposed,
    ],
)
def test_wrong_depthwise_is_refused(wrong, dtype) -> None:
    _assert_refused("depthwise_conv_pool", _depthwise, wrong, dtype, DEPTHWISE)


def _gate_of_next_image(x, weight, bias, activation, gate, residual):
    return reference.pointwise_conv(x, weight, bias, activation, gate.roll(1, 0), residual)


def _gate_of_next_channel(x, weight, bias, activation, gate, residual):
    return reference.pointwise_conv(x, weight, bias, activation, gate.roll(1, 1), residual)


def _residual_twice(x, weight, bias, activation, gate, residual):
    return reference.pointwise_conv(x, weight, bias, activation, gate, 2 * residual)


def _residual_before_activation(x, weight, bias, activation, gate, residual):
    y = reference.pointwise_conv(x, weight, bias, "identity", gate, residual)
    return reference.activate(y, activation)


def _sixteen_bit_accumulator(x, weight, bias, activation, gate, residual):
    low = torch.bfloat16
    terms = (x * gate[:, :, None, None]).to(low)[:, None] * weight[:, :, 0, 0].to(low)[None, :, :, None, None]
    total = torch.zeros_like(terms[:, :, 0])
    for i in range(terms.shape[2]):
        total = (total + terms[:, :, i]).to(low)
    return (reference.activate(total.float() + bias[:, None, None], activation) + residual).to(x.dtype)


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(
    "wrong",
    [
        _gate_of_next_image,
        _gate_of_next_channel,
        _residual_twice,
        _residual_before_activation,
        _sixteen_bit_accumulator,
    ],
)
def test_wrong_pointwise_is_refused(wrong, dtype) -> None:
    _assert_refused("pointwise_conv", reference.pointwise_conv, wrong, dtype, POINTWISE)


def test_one_wrong_value_is_refused_by_the_exact_test() -> None:
    """Small enough for the budget in bfloat16, which is why there are exact tests."""
    args = make_args("depthwise_conv", dtype=torch.bfloat16, exact=True, activation="identity", **DEPTHWISE)
    expectation = Expectation.of("depthwise_conv", args)
    y = reference.depthwise_conv(*args)
    expectation.assert_exact(y)
    y[1, 3, 7, 5] += 1
    with pytest.raises(AssertionError, match="1 of"):
        expectation.assert_exact(y)


def test_formula() -> None:
    r64 = torch.tensor([1.0, -4.0], dtype=torch.float64)
    budget = Budget(r64, r64 + torch.tensor([0.0, 0.5]), terms=64, dtype=torch.float16)
    slack = 2 * torch.finfo(torch.float16).eps
    comparison = budget.compare(r64 + torch.tensor([0.25, 0.0]))
    assert comparison.max_allowed == pytest.approx(2 * 0.5 + slack * 4)
    assert comparison.l2_allowed == pytest.approx(2 * 0.5 + slack * 17**0.5)
    assert (comparison.max_error, comparison.l2_error) == (0.25, 0.25)
    assert comparison.passed
    assert 0 < comparison.used < 1
    assert not budget.compare(r64 + 2).passed
    assert not budget.compare(torch.tensor([1.0, float("inf")])).passed


def test_few_terms_get_no_less_than_one_eps() -> None:
    r64 = torch.ones(3, dtype=torch.float64)
    budget = Budget(r64, r64, terms=1, dtype=torch.float32)
    assert budget.compare(r64).max_allowed == torch.finfo(torch.float32).eps


def test_empty_passes_and_shapes_must_agree() -> None:
    empty = torch.empty(0, 3)
    assert Budget(empty, empty, 9, torch.float32).compare(empty).passed
    with pytest.raises(ValueError, match="shape"):
        Budget(empty, empty, 9, torch.float32).compare(torch.empty(0, 4))


def test_a_reference_that_overflows_is_no_reference() -> None:
    args = make_args("depthwise_conv", dtype=torch.float16)
    args[1] = args[1] * 60000
    args[0] = args[0] * 1000
    with pytest.raises(ValueError, match="not finite"):
        Expectation.of("depthwise_conv", args)
