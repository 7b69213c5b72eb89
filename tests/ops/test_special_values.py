"""Infinities, NaN, huge and subnormal activations on every instruction set of the CPU.

The oracle is a composition of ``torch.nn.functional`` in float64 over the same stored values, rounded where
the operator stores: NaN and infinities must lie where it has them, the rest must agree.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from effnet_fast import native
from effnet_fast.ops.schemas import ACTIVATIONS
from effnet_fast.testing import LOW_DTYPES, Target, make_args

FUNCTIONS = {
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "identity": lambda x: x,
}
HUGE = {torch.float32: 1e30, torch.bfloat16: 1e30, torch.float16: 3e4}
SUBNORMAL = {torch.float32: 1e-40, torch.bfloat16: 5e-39, torch.float16: 1e-6}
SIZES = dict(c=20, m=70, o=35, s=5, h=9, w=8, k=5)
OPS = (
    "pointwise_conv",
    "depthwise_conv",
    "dense_conv",
    "stem_conv",
    "expand_depthwise",
    "mbconv",
    "fused_mbconv",
)
TERMS = 25 * 20 + 20 + 70  # of a dense or depthwise filter, an expansion, a projection
INFINITY, NAN = float("inf"), float("nan")


def specials(dtype: torch.dtype) -> list[dict[tuple[int, int, int], float]]:
    """For each image what stands at (channel, row, column): one thing an image, the last two none and all."""
    huge, inside, corner = HUGE[dtype], (3, 4, 5), (19, 8, 0)
    alone = [NAN, INFINITY, -INFINITY, huge, -huge]
    pairs = [{inside: INFINITY, (3, 5, 5): -INFINITY}, {inside: huge, (4, 4, 5): -huge}]
    mixed = dict(zip([(0, 0, 0), (1, 0, 7), (2, 8, 7), (7, 3, 3), corner], alone, strict=True))
    return [*({inside: value, corner: value} for value in alone), *pairs, {}, mixed]


class Composition:
    """An operator by ``torch.nn.functional`` on float64, and the size of its terms.

    `stores`: whether maps between two convolutions are rounded to `dtype`, which the contract leaves open.
    `of_sizes`: every value by its absolute value, no activation (none of them makes a value larger), gates of
    1: a bound of the sums of absolute terms, which rounding errors are proportional to.
    """

    def __init__(self, dtype: torch.dtype, stores: bool = False, of_sizes: bool = False):
        self.dtype, self.stores, self.of_sizes = dtype, stores, of_sizes

    def read(self, value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        return value.double().abs().nan_to_num(0, 0, 0) if self.of_sizes else value.double()

    def activate(self, x: Tensor, activation: str) -> Tensor:
        return x if self.of_sizes else FUNCTIONS[activation](x)

    def between(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).double() if self.stores else x

    def pointwise_conv(self, x, weight, bias, activation, gate=None, residual=None):
        x = (
            self.read(x)
            if gate is None
            else (self.read(x) * self.read(gate)[:, :, None, None]).to(self.dtype)
        )
        y = self.activate(F.conv2d(x.double(), self.read(weight), self.read(bias)), activation)
        return y if residual is None else y + self.read(residual)

    def depthwise_conv(self, x, weight, bias, stride, padding, activation):
        top, left, bottom, right = padding
        x = F.pad(self.read(x), (left, right, top, bottom))
        y = F.conv2d(x, self.read(weight), self.read(bias), stride, groups=x.shape[1])
        return self.activate(y, activation)

    def expand_depthwise(self, x, w_expand, b_expand, expand_activation, *depthwise):
        expanded = self.pointwise_conv(x, w_expand, b_expand, expand_activation)
        return self.depthwise_conv(self.between(expanded), *depthwise)

    def dense_conv(self, x, weight, bias, stride, padding, activation, residual=None):
        top, left, bottom, right = padding
        x = F.pad(self.read(x), (left, right, top, bottom))
        y = self.activate(F.conv2d(x, self.read(weight), self.read(bias), stride), activation)
        return y if residual is None else y + self.read(residual)

    def stem_conv(self, image, weight, bias, stride, padding, activation, mean, std, dtype):
        return self.dense_conv(image, weight, bias, stride, padding, activation)

    def mbconv(self, x, w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project, *rest):
        stride, padding, activation, se_activation, gate, residual = rest
        y = self.read(x)
        if w_expand is not None:
            y = self.between(self.pointwise_conv(y, w_expand, b_expand, activation))
        y = self.depthwise_conv(y, w_dw, b_dw, stride, padding, activation)
        if w1 is not None and not self.of_sizes:
            squeezed = F.conv2d(y.mean((2, 3), keepdim=True), w1.double(), b1.double())
            opened = F.conv2d(self.activate(squeezed, se_activation), w2.double(), b2.double())
            opened = torch.sigmoid(opened) if gate == "sigmoid" else F.hardsigmoid(opened)
            y = self.between(y) * opened
        y = self.pointwise_conv(self.between(y), w_project, b_project, "identity")
        return y + self.read(x) if residual else y

    def fused_mbconv(self, x, w_expand, b_expand, w_project, b_project, *rest):
        stride, padding, activation, residual = rest
        y = self.dense_conv(x, w_expand, b_expand, stride, padding, activation)
        y = self.pointwise_conv(self.between(y), w_project, b_project, "identity")
        return y + self.read(x) if residual else y


def fault(y: Tensor, wanted: Tensor, sizes: Tensor) -> str:
    """How `y` departs from `wanted` in float64; empty where it does not.

    A finite value may be off by a unit of the storage type of the size of its terms (eight in float32, where
    every sum is rounded to it), or by two of its smallest numbers, and as many of float32's as it has terms.
    """
    limits = torch.finfo(y.dtype)
    stored, got = wanted.to(y.dtype).double(), y.double()
    for name, positions in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        if not torch.equal(positions(got), positions(stored)):
            differing = (positions(got) != positions(stored)).flatten(1).sum(1).tolist()
            return f"other places of {name}: {differing} of an image"
    finite = stored.isfinite()
    units = 8 if y.dtype == torch.float32 else 1
    allowed = units * limits.eps * sizes + 2 * limits.smallest_normal * limits.eps + 2 * TERMS * 2.0**-149
    excess = ((got - stored).abs() - allowed)[finite]
    return f"finite values differ by up to {excess.max():g} more than allowed" if (excess > 0).any() else ""


def assert_like_pytorch(target: Target, op: str, args: list) -> None:
    """Places and values as PyTorch's, for one of the two roundings of maps between convolutions."""
    y = target.run(op, args)
    sizes = getattr(Composition(y.dtype, of_sizes=True), op)(*args)
    faults = [fault(y, getattr(Composition(y.dtype, stores), op)(*args), sizes) for stores in (False, True)]
    assert "" in faults, (op, args[-6:], faults)


def cases(op: str, without: tuple[str, ...] = (), **given):
    """Arguments of `op` for every activation, two or three geometries and absent tensors."""
    for activation in ACTIVATIONS:
        names = dict(activation=activation, expand_activation=activation, se_activation=activation)
        common = {**SIZES, **names, **given}
        if op == "pointwise_conv":
            yield make_args(op, **common, without=without)
            yield make_args(op, **common, without=(*without, "gate", "residual"))
        elif op == "mbconv":
            yield make_args(op, **common, without=without, gate="hardsigmoid", residual=True)
            yield make_args(op, **common, without=(*without, "w1", "b1", "w2", "b2"), stride=2)
            yield make_args(op, **common, without=(*without, "w_expand", "b_expand"))
        elif op == "fused_mbconv":
            yield make_args(op, **common, without=without, residual=True)
            yield make_args(op, **{**common, "c": 21}, without=without, stride=2, padding=(1, 2, 3, 2))
        elif op in ("dense_conv", "stem_conv"):
            # A photograph's channels (eight pixels at a time are widened), an odd number, an even one.
            for c, stride in ((3, 2), (21, 1), (20, 2)):
                sizes = {**common, "c": c, "w": 13}
                yield make_args(
                    op, **sizes, without=(*without, "mean", "std"), stride=stride, image_dtype=given["dtype"]
                )
        else:
            yield make_args(op, **common, without=without)
            yield make_args(op, **common, without=without, stride=2, padding=(1, 2, 3, 2))


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("isa", native.cpu_isas())
@pytest.mark.parametrize("op", OPS)
def test_infinities_nan_and_huge_values_end_where_pytorchs_do(op, isa, dtype) -> None:
    images = specials(dtype)
    for args in cases(op, dtype=dtype, n=len(images)):
        for image, values in zip(args[0], images, strict=True):
            for place, value in values.items():
                channel, row, column = place
                image[channel % len(image), row, column] = value
        assert_like_pytorch(Target("cpu", packed=True, isa=isa), op, args)


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("isa", native.cpu_isas())
@pytest.mark.parametrize("op", OPS)
def test_subnormal_activations_are_kept(op, isa, dtype) -> None:
    """Except in bfloat16 on its own instructions, which read and write every subnormal number as zero."""
    target = Target("cpu", packed=True, isa=isa)
    for args in cases(op, ("bias", "b_expand", "b_dw", "b_project", "residual"), dtype=dtype, n=2):
        args[0] = args[0].sign() * SUBNORMAL[dtype]
        if isa in ("avx512_amx", "avx512_bf16") and dtype == torch.bfloat16:
            args[0] /= 5  # so small that a depthwise sum, which is float32's, is subnormal too
            assert (target.run(op, args) == 0).all()
        else:
            assert_like_pytorch(target, op, args)
