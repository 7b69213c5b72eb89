"""Operators over drawn shapes, paddings, dtypes and options: within budget on every target."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from effnet_fast.ops.geometry import conv_output_size
from effnet_fast.ops.schemas import ACTIVATIONS, GATES, OPERATORS
from effnet_fast.testing import LAYOUTS, LOW_DTYPES, Expectation, make_args, targets

CHANNELS = st.sampled_from([1, 2, 3, 7, 8, 16, 17, 24, 27, 40, 65])


@st.composite
def calls(draw, op: str):
    row = OPERATORS[op]
    names = {parameter.name for parameter in row.parameters}
    # One value says nothing of the reference's usual error where pixel and mean cancel, or a mean's terms.
    least = 8 if row.storage == "dtype" else 1
    several = CHANNELS.filter(lambda channels: channels >= 8)
    outputs = several if op == "head_pool" else CHANNELS
    middle = several if op == "stem_block_sums" else CHANNELS
    options = dict(
        n=draw(st.integers(0, 3)), c=draw(CHANNELS), o=draw(outputs), m=draw(middle),
        s=draw(st.integers(1, 9)), h=draw(st.integers(least, 20)), w=draw(st.integers(least, 20)),
    )  # fmt: skip
    if "padding" in names:
        kernel = draw(st.sampled_from([1, 3, 5, 7]))
        padding = tuple(draw(st.integers(0, kernel - 1)) for _ in range(4))
        stride = draw(st.integers(1, 3))
        for size, before, after in ((options["h"], *padding[::2]), (options["w"], *padding[1::2])):
            assume(conv_output_size(size, kernel, stride, before, after) >= 1)
        options.update(k=kernel, padding=padding, stride=stride, d=draw(st.sampled_from([1, 3, 5])))
        same = stride == 1 and padding[0] + padding[2] == padding[1] + padding[3] == kernel - 1
        if "bool residual" in row.arguments:
            options["residual"] = same and draw(st.booleans())
    for name in ("activation", "expand_activation", "se_activation"):
        if name in names:
            options[name] = draw(st.sampled_from(ACTIVATIONS))
    if "str gate" in row.arguments:
        options["gate"] = draw(st.sampled_from(GATES))
    optional = [{"bias"}, {"gate"}, {"residual"}, {"b1"}, {"b2"}, {"mean"}, {"std"}, {"b_expand"}, {"b_dw"}]
    optional += [{"b_project"}, {"b_stem"}]
    if op == "mbconv":
        optional += [{"w_expand", "b_expand"}, {"w1", "b1", "w2", "b2"}]
    without = set().union(*(group for group in optional if draw(st.booleans())))
    image_dtype = draw(st.sampled_from([torch.uint8, torch.float32])) if row.storage == "dtype" else None
    return make_args(
        op, dtype=draw(st.sampled_from(LOW_DTYPES)), layout=draw(st.sampled_from(LAYOUTS)),
        without=tuple(without), seed=draw(st.integers(0, 99)), image_dtype=image_dtype, **options,
    )  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_call_is_within_budget(op, data) -> None:
    args = data.draw(calls(op))
    expectation = Expectation.of(op, args)
    interpreted = data.draw(st.integers(0, 7)) == 0  # an eighth of the calls: it is slow
    for target in targets():
        if interpreted or not target.interpreted:
            expectation.assert_within(target.run(op, args))
