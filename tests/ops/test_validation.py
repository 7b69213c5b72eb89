"""Bad calls: what is raised, that it names the argument, and that every backend and form says the same."""

from __future__ import annotations

import pytest
import torch

from effnet_fast import backends, ops
from effnet_fast.ops.schemas import OPERATORS, TWINS
from effnet_fast.testing import Target, make_args


def _names(op: str) -> list[str]:
    return [parameter.name for parameter in OPERATORS[op].parameters]


def _changed(op: str, change: dict, **options) -> list:
    return [change.get(name, value) for name, value in zip(_names(op), make_args(op, **options), strict=True)]


def _zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


BAD = [
    ("depthwise_conv", dict(x=_zeros(8, 9, 7)), ValueError,
     r"x has shape \[8, 9, 7\], expected \[N, C, H, W\]"),
    ("depthwise_conv", dict(x="image"), TypeError, "x must be a Tensor, got str"),
    ("depthwise_conv", dict(x=_zeros(2, 8, 9, 7, dtype=torch.int32)), TypeError,
     "x has dtype int32, expected float32"),
    ("depthwise_conv", dict(x=_zeros(2, 8, 0, 7)), ValueError, "H = 0, expected at least 1"),
    ("depthwise_conv", dict(x=_zeros(2, 0, 9, 7), weight=_zeros(0, 1, 3, 3), bias=None), ValueError,
     "C = 0, expected at least 1"),
    ("depthwise_conv", dict(weight=None), TypeError, "weight must be a Tensor, got None"),
    ("depthwise_conv", dict(weight=_zeros(9, 1, 3, 3)), ValueError,
     r"weight has shape \[9, 1, 3, 3\], expected \[C, 1, k, k\] with C = 8"),
    ("depthwise_conv", dict(weight=_zeros(8, 1, 3, 5)), ValueError, r"weight has shape \[8, 1, 3, 5\]"),
    ("depthwise_conv", dict(weight=_zeros(8, 1, 4, 4)), ValueError, "kernel size 4 is even"),
    ("depthwise_conv", dict(weight=_zeros(8, 1, 3, 3, dtype=torch.float16)), TypeError,
     "weight has dtype float16, expected float32"),
    ("depthwise_conv", dict(bias=_zeros(9)), ValueError, r"bias has shape \[9\], expected \[C\] with C = 8"),
    ("depthwise_conv", dict(bias=_zeros(8, dtype=torch.float16)), TypeError,
     "bias has dtype float16, expected float32"),
    ("depthwise_conv", dict(stride=0), ValueError, "stride = 0, expected at least 1"),
    ("depthwise_conv", dict(stride=1.5), TypeError, "stride must be an int, got float"),
    ("depthwise_conv", dict(padding=(1, 1, 1)), ValueError, r"padding = \(1, 1, 1\), expected four integers"),
    ("depthwise_conv", dict(padding=(1, 1, -1, 1)), ValueError, "expected no negative value"),
    ("depthwise_conv", dict(padding=(1, 1, 1, 0.5)), TypeError, "padding must be integers"),
    ("depthwise_conv", dict(weight=_zeros(8, 1, 13, 13)), ValueError,
     "9 x 7 .*is smaller than the 13 x 13 kernel"),
    ("depthwise_conv", dict(activation="gelu"), ValueError,
     "activation = 'gelu', expected one of identity, relu,"),
    ("depthwise_conv_gate", dict(w1=_zeros(4, 9)), ValueError,
     r"w1 has shape \[4, 9\], expected \[squeezed, C, 1, 1\]"),
    ("depthwise_conv_gate", dict(w2=_zeros(8, 5)), ValueError, "w2 has shape .*squeezed = 4"),
    ("depthwise_conv_gate", dict(gate="softmax"), ValueError,
     "gate = 'softmax', expected one of sigmoid, hardsigmoid"),
    ("depthwise_conv_gate", dict(w1=_zeros(4, 8, dtype=torch.float16)), TypeError, "w1 has dtype float16"),
    ("pointwise_conv", dict(weight=_zeros(16, 9)), ValueError,
     r"weight has shape .*\[Cout, C, 1, 1\] with C = 8"),
    ("pointwise_conv", dict(weight=_zeros(16, 8, 3, 3)), ValueError, "weight has shape"),
    ("pointwise_conv", dict(gate=_zeros(2, 9)), ValueError, r"gate has shape \[2, 9\], expected \[N, C\]"),
    ("pointwise_conv", dict(gate=_zeros(2, 8, dtype=torch.bfloat16)), TypeError,
     "gate has dtype bfloat16, expected float32"),
    ("pointwise_conv", dict(residual=_zeros(2, 16, 9, 8)), ValueError,
     r"residual .*expected \[N, Cout, H, W\]"),
    ("pointwise_conv", dict(residual=_zeros(2, 16, 9, 7, dtype=torch.float16)), TypeError,
     "residual has dtype float16"),
    ("dense_conv", dict(residual=_zeros(2, 16, 9, 8)), ValueError, r"residual .*\[N, Cout, OH, OW\]"),
    ("stem_conv", dict(image=_zeros(2, 8, 9, 7, dtype=torch.int8)), TypeError,
     "image has dtype int8, expected uint8 or"),
    ("stem_conv", dict(mean=_zeros(3)), ValueError, r"mean has shape \[3\], expected \[C\]"),
    ("stem_conv", dict(dtype=torch.float16), TypeError, "weight has dtype float32, expected float16"),
    ("stem_conv", dict(dtype=torch.uint8), TypeError, "dtype = torch.uint8, expected float32 or float16"),
    ("squeeze_excite_gate", dict(count=0), ValueError, "count = 0, expected at least 1"),
    ("squeeze_excite_gate", dict(sums=_zeros(2, 8)), ValueError,
     r"sums has shape \[2, 8\], expected \[N, tiles, C\]"),
    ("squeeze_excite_gate", dict(sums=_zeros(2, 1, 8, dtype=torch.bfloat16)), TypeError,
     "sums has dtype bfloat16"),
    ("expand_depthwise", dict(w_dw=_zeros(23, 1, 3, 3)), ValueError, "w_dw has shape .*expanded = 24"),
    ("expand_depthwise_pool", dict(expand_activation="tanh"), ValueError, "expand_activation = 'tanh'"),
    ("head_pool", dict(bias=_zeros(15)), ValueError,
     r"bias has shape \[15\], expected \[Cout\] with Cout = 16"),
    ("mbconv", dict(w_expand=None), ValueError, "b_expand is given without w_expand"),
    ("mbconv", dict(w_expand=None, b_expand=None), ValueError, "w_dw has 24 channels; without w_expand"),
    ("mbconv", dict(w1=None), ValueError, "w1 and w2 must be given together"),
    ("mbconv", dict(w1=None, w2=None), ValueError, "b1 or b2 is given without w1 and w2"),
    ("mbconv", dict(residual=True), ValueError, "residual = True needs an output like the input"),
    ("stem_block_sums", dict(w_dw=_zeros(24, 1, 2, 2)), ValueError, "depthwise kernel size 2 is even"),
    ("stem_block", dict(gate=_zeros(2, 23)), ValueError,
     r"gate has shape \[2, 23\], expected \[N, expanded\]"),
    ("stem_block", dict(w_project=None), TypeError, "w_project must be a Tensor, got None"),
    ("fused_mbconv", dict(residual=True), ValueError, "residual = True needs an output like the input"),
    ("fused_mbconv", dict(w_expand=None), TypeError, "w_expand must be a Tensor, got None"),
    ("fused_mbconv", dict(w_project=_zeros(16, 23)), ValueError,
     r"w_project has shape \[16, 23\], expected \[Cout, expanded, 1, 1\] with expanded = 24"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "change", "error", "message"), BAD)
def test_bad_argument(op, change, error, message, unpacked_target) -> None:
    with pytest.raises(error, match=message) as caught:
        unpacked_target.run(op, _changed(op, change))
    assert str(caught.value).startswith(f"effnet_fast.{op}: ")


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("op", "change", "error", "message"), BAD)
def test_raw_operator_says_the_same(op, change, error, message, twin) -> None:
    args = _changed(op, change)
    with pytest.raises(error) as public:
        Target("reference").run(op, args)
    # A value of the wrong type may be the dispatcher's to refuse, with its own RuntimeError.
    with pytest.raises((error, RuntimeError)) as raw:
        getattr(torch.ops.effnet_fast, op + twin).default(*args)
    if raw.type is error:
        assert str(raw.value) == str(public.value)
    else:
        assert "Expected a value of type" in str(raw.value)


@pytest.mark.parametrize("op", OPERATORS)
def test_packed_form_checks_its_arguments(op, packed_target) -> None:
    target, row = packed_target, OPERATORS[op]
    names = [parameter.name for parameter in row.packed_parameters]
    args = target.pack_arguments(op, make_args(op))
    twin = backends.twin(backends.parse_backend(target.backend))
    operator = getattr(torch.ops.effnet_fast, f"{op}_packed{twin}").default

    def bad(**change):
        return [change.get(name, value) for name, value in zip(names, args, strict=True)]

    with pytest.raises(TypeError, match="packed has dtype float32, expected uint8"):
        operator(*bad(packed=torch.zeros(64, device=target.device)))
    with pytest.raises(ValueError, match=r"packed has shape \[8, 8\]"):
        operator(*bad(packed=torch.zeros(8, 8, dtype=torch.uint8, device=target.device)))
    first = names[0]
    with pytest.raises(ValueError, match=f"{first} has shape"):
        operator(*bad(**{first: args[0].flatten()}))
    if "kernel" in names:
        with pytest.raises(ValueError, match="kernel size 2 is even"):
            operator(*bad(kernel=2))
    if "out_channels" in names:
        with pytest.raises(ValueError, match="out_channels = 0, expected at least 1"):
            operator(*bad(out_channels=0))


@pytest.mark.parametrize("change", ["shape", "dtype", "layout", "count"])
def test_bad_out(unpacked_target, change) -> None:
    args = make_args("depthwise_conv_pool", device=unpacked_target.device)
    y, sums = ops.depthwise_conv_pool(*args)
    out, error, message = {
        "shape": ((y[:, :, 1:].clone(), sums), ValueError,
                  r"output y has shape \[2, 8, 8, 7\], expected \[2, 8, 9, 7\]"),
        "dtype": ((y, sums.double()), TypeError, "output sums has dtype float64, expected float32"),
        "layout": ((y.contiguous(), sums), ValueError, "output y has strides .*expected channels_last"),
        "count": (y, ValueError, "got 1 outputs, expected 2: y, sums"),
    }[change]  # fmt: skip
    with pytest.raises(error, match=message):
        ops.depthwise_conv_pool(*args, backend=unpacked_target.backend, out=out)


def test_other_device_is_named(unpacked_target) -> None:
    x, weight = torch.zeros(1, 8, 4, 4, device=unpacked_target.device), torch.zeros(8, 1, 3, 3, device="meta")
    with pytest.raises(ValueError, match=f"weight is on meta, the other tensors are on {x.device}"):
        ops.depthwise_conv(x, weight, backend=unpacked_target.backend)
