"""The public functions: the documented PyTorch, defaults, paddings, out=, autocast, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from effnet_fast import ops
from effnet_fast.ops import reference
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Expectation, make_args


def _tensors(result) -> tuple:
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def _named(op: str, args: list) -> dict:
    return dict(zip([parameter.name for parameter in OPERATORS[op].parameters], args, strict=True))


@pytest.mark.parametrize("op", OPERATORS)
def test_every_argument_by_name(op, unpacked_target) -> None:
    args = make_args(op, device=unpacked_target.device)
    Expectation.of(op, args).assert_within(
        getattr(ops, op)(**_named(op, args), backend=unpacked_target.backend)
    )


def test_documented_pytorch() -> None:
    """The reference is what the docstrings say, in PyTorch's own words."""
    x, w = torch.randn(2, 6, 9, 8).double(), torch.randn(6, 1, 3, 3).double()
    b, dense = torch.randn(6).double(), torch.randn(4, 6, 3, 3).double()
    top, left, bottom, right = padding = (0, 1, 2, 1)
    padded = F.pad(x, (left, right, top, bottom))
    y = F.silu(F.conv2d(padded, w, b, 2, groups=6))
    torch.testing.assert_close(ops.depthwise_conv(x, w, b, 2, padding, "silu"), y)
    pooled, sums = ops.depthwise_conv_pool(x, w, b, 2, padding, "silu")
    torch.testing.assert_close(pooled, y)
    torch.testing.assert_close(sums.sum(1), y.sum((2, 3)))
    torch.testing.assert_close(
        ops.dense_conv(x, dense, None, 2, padding, "hardswish"), F.hardswish(F.conv2d(padded, dense, None, 2))
    )
    w1, b1, w2, b2 = (torch.randn(*s).double() for s in ((3, 6, 1, 1), (3,), (6, 3, 1, 1), (6,)))
    mean = y.mean((2, 3), keepdim=True)
    gates = F.hardsigmoid(F.conv2d(F.relu6(F.conv2d(mean, w1, b1)), w2, b2)).flatten(1)
    torch.testing.assert_close(
        ops.squeeze_excite_gate(sums, 5 * 4, w1, b1, w2, b2, "relu6", "hardsigmoid"), gates
    )
    project, residual = torch.randn(4, 6, 1, 1).double(), torch.randn(2, 4, 9, 8).double()
    torch.testing.assert_close(
        ops.pointwise_conv(x, project, None, "relu", gates, residual),
        F.relu(F.conv2d(x * gates[:, :, None, None], project)) + residual,
    )
    torch.testing.assert_close(
        ops.head_pool(x, project, None, "silu"), F.silu(F.conv2d(x, project)).mean((2, 3))
    )
    image = torch.randint(0, 256, (2, 6, 9, 8), dtype=torch.uint8)
    mean, std = torch.rand(6).double(), 1 + torch.rand(6).double()
    v = (image.double() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(
        ops.stem_conv(image, dense, None, 2, padding, "silu", mean, std),
        F.silu(F.conv2d(F.pad(v, (left, right, top, bottom)), dense, None, 2)),
    )  # fmt: skip


def test_tile_sums() -> None:
    x = torch.randn(2, 3, 35, 17).double()
    sums = reference.tile_sums(x)
    assert sums.shape == (2, 3 * 2, 3)
    for ty in range(3):
        for tx in range(2):
            tile = x[:, :, 16 * ty : 16 * ty + 16, 16 * tx : 16 * tx + 16]
            torch.testing.assert_close(sums[:, ty * 2 + tx], tile.sum((2, 3)))


def test_paddings(unpacked_target) -> None:
    x, w = unpacked_target.place([torch.randn(1, 8, 9, 9), torch.randn(8, 1, 5, 5)])

    def run(padding):
        return ops.depthwise_conv(x, w, padding=padding, backend=unpacked_target.backend)

    assert torch.equal(run(None), run(2))
    assert torch.equal(run((2, 2)), run(2))
    assert torch.equal(run((1, 2)), run((1, 2, 1, 2)))
    assert torch.equal(run([0, 1, 2, 3]), run((0, 1, 2, 3)))
    assert run((0, 1, 2, 3)).shape == (1, 8, 7, 9)


def test_stem_conv_takes_numbers_for_mean_and_std(unpacked_target) -> None:
    args = _named(
        "stem_conv", make_args("stem_conv", c=3, dtype=torch.float16, device=unpacked_target.device)
    )
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    args.update(mean=mean, std=std, dtype=None)
    y = ops.stem_conv(**args, backend=unpacked_target.backend)
    assert y.dtype == torch.float16
    mean, std = unpacked_target.place([torch.tensor(mean), torch.tensor(std)])
    args.update(mean=mean, std=std, dtype=torch.float16)
    assert torch.equal(y, ops.stem_conv(**args, backend=unpacked_target.backend))


@pytest.mark.parametrize("op", OPERATORS)
def test_out(op, unpacked_target) -> None:
    args = make_args(op, layout="contiguous", device=unpacked_target.device)
    public = getattr(ops, op)
    expected = _tensors(public(**_named(op, args), backend=unpacked_target.backend))
    out = tuple(torch.full_like(y, float("nan")) for y in expected)
    result = public(**_named(op, args), backend=unpacked_target.backend, out=out if len(out) > 1 else out[0])
    for y, written, returned in zip(expected, out, _tensors(result), strict=True):
        assert torch.equal(y, written)
        assert returned is written


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("op", OPERATORS)
def test_autocast_is_a_cast_of_activations_and_weights(op, unpacked_target, dtype) -> None:
    args, public = make_args(op, device=unpacked_target.device), getattr(ops, op)
    row = OPERATORS[op]
    cast = {
        name: value.to(dtype)
        if isinstance(value, torch.Tensor)
        and row.tensors[name].kind == "storage"
        and value.is_floating_point()
        else value
        for name, value in _named(op, args).items()
    }
    given = _named(op, args)
    if row.storage == "dtype":
        cast["dtype"], given["dtype"] = dtype, None
    with torch.autocast(unpacked_target.device, dtype=dtype):
        result = _tensors(public(**given, backend=unpacked_target.backend))
    for y, expected in zip(result, _tensors(public(**cast, backend=unpacked_target.backend)), strict=True):
        assert y.dtype == expected.dtype
        assert torch.equal(y, expected)


def test_autocast_leaves_float64_and_an_explicit_dtype_alone() -> None:
    double = make_args("pointwise_conv", dtype=torch.float64)
    stem = _named("stem_conv", make_args("stem_conv"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.pointwise_conv(*double).dtype == torch.float64
        assert ops.stem_conv(**stem).dtype == torch.float32


def test_autocast_gradients_reach_float32_parameters() -> None:
    x, w, *rest = make_args("depthwise_conv")
    w.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ops.depthwise_conv(x, w, *rest)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert w.grad.dtype == torch.float32


@pytest.mark.parametrize("op", OPERATORS)
def test_gradients(op) -> None:
    """Of every floating tensor, against finite differences of the float64 reference."""
    sizes = dict(n=2, c=2, h=3, w=2, o=3, m=3, s=2, k=3)
    args = make_args(op, dtype=torch.float64, image_dtype=torch.float64, activation="silu", **sizes)
    places = [i for i, value in enumerate(args) if isinstance(value, torch.Tensor)]

    def function(*tensors):
        given = list(args)
        for i, tensor in zip(places, tensors, strict=True):
            given[i] = tensor
        return getattr(ops, op)(**_named(op, given))

    assert torch.autograd.gradcheck(
        function, [args[i].detach().clone().requires_grad_() for i in places], fast_mode=True
    )


@pytest.mark.parametrize("op", OPERATORS)
def test_an_input_that_requires_grad_gives_a_differentiable_result(op, unpacked_target) -> None:
    args = make_args(op, device=unpacked_target.device)
    weight = next(i for i, p in enumerate(OPERATORS[op].parameters) if p.name in OPERATORS[op].weights)
    args[weight] = args[weight].clone().requires_grad_()
    result = _tensors(getattr(ops, op)(**_named(op, args), backend=unpacked_target.backend))
    sum(y.float().sum() for y in result).backward()
    assert args[weight].grad.abs().sum() > 0
    with torch.no_grad():
        assert not any(
            y.requires_grad
            for y in _tensors(getattr(ops, op)(**_named(op, args), backend=unpacked_target.backend))
        )


def test_out_with_an_input_that_requires_grad_is_refused() -> None:
    x, w, *rest = make_args("depthwise_conv")
    with pytest.raises(RuntimeError, match="out= does not support autograd"):
        ops.depthwise_conv(x, w.requires_grad_(), *rest, out=torch.empty_like(x))


def test_inference_mode() -> None:
    args = make_args("mbconv")
    expected = ops.mbconv(*args)
    with torch.inference_mode():
        assert torch.equal(ops.mbconv(*args), expected)
    assert torch.equal(expected, torch.ops.effnet_fast.mbconv(*args))
