import math

import pytest
import torch

from effnet_fast.measure import judge_logits

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=DTYPES, ids=str)
def judged(request):
    """(exact logits, stock logits in the dtype, dtype)."""
    exact = torch.randn(4, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(4, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stock = (exact + 4 * torch.finfo(request.param).eps * noise).to(request.param)
    return exact, stock, request.param


def judge(logits, judged):
    exact, stock, dtype = judged
    return judge_logits(logits, oracle=exact, stock=stock, dtype=dtype, terms=1)


def test_stock_passes_its_own_gate_at_half_of_the_allowance(judged):
    verdict = judge(judged[1], judged)
    assert verdict.passed
    assert 0.3 < verdict.usage <= 0.5
    assert verdict.reason == ""


def test_the_exact_answer_uses_nothing(judged):
    assert judge(judged[0], judged).usage == 0.0


def test_three_times_the_error_of_stock_is_refused(judged):
    exact, stock, _ = judged
    verdict = judge(exact + 3 * (stock.double() - exact), judged)
    assert not verdict.passed
    assert verdict.usage > 1
    assert "max error" in verdict.reason


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_small_errors_everywhere_and_one_large_error_are_both_refused(judged, share):
    exact, _, dtype = judged
    wrong = exact.clone()
    if share == 1.0:
        wrong *= 1 + 20 * torch.finfo(dtype).eps  # every logit a little: relative L2
    else:
        wrong[0, 0] += 60 * torch.finfo(dtype).eps  # one logit much: maximum
    assert not judge(wrong, judged).passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(judged, value):
    wrong = judged[0].clone()
    wrong[1, 3] = value
    verdict = judge(wrong, judged)
    assert not verdict.passed
    assert verdict.usage == math.inf
    assert "not finite" in verdict.reason


def test_wrong_rows_and_wrong_shapes_are_refused(judged):
    exact = judged[0]
    assert not judge(exact.roll(1, 0), judged).passed
    assert "shape [4, 99]" in judge(exact[:, :99], judged).reason


def test_an_empty_batch_passes():
    empty = torch.empty(0, 10, dtype=torch.float64)
    assert judge_logits(empty.float(), oracle=empty, stock=empty.float(), dtype=torch.float32, terms=1).passed


def test_an_oracle_in_another_dtype_and_an_infinite_stock_are_errors():
    logits = torch.ones(1, 2)
    with pytest.raises(TypeError, match="oracle is torch.float32; allowed: torch.float64"):
        judge_logits(logits, oracle=logits, stock=logits, dtype=torch.float32, terms=1)
    with pytest.raises(ValueError, match="rlow has"):
        judge_logits(logits, oracle=logits.double(), stock=logits[:, :1], dtype=torch.float32, terms=1)
    with pytest.raises(ValueError, match="not finite"):
        judge_logits(logits, oracle=logits.double(), stock=logits / 0, dtype=torch.float32, terms=1)


def test_the_band_grows_with_the_terms_of_a_logit_in_float32_alone():
    exact = torch.ones(1, 4, dtype=torch.float64)
    for dtype, allowed in ((torch.float32, True), (torch.bfloat16, False)):
        wrong = exact * (1 + 8 * torch.finfo(dtype).eps)
        verdict = judge_logits(wrong, oracle=exact, stock=exact.to(dtype), dtype=dtype, terms=1600)
        assert verdict.passed == allowed
