"""Who serves a call, and what is said when nobody can."""

from __future__ import annotations

import pytest
import torch

from effnet_fast import backends, native, ops
from effnet_fast.backends import Backend, resolve, supports
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import LOW_DTYPES, make_args

CPU = dict(device_type="cpu", dtype=torch.float32)
# A CPU's memory where Triton is interpreted, a GPU's where it compiles.
TRITON = dict(device_type=backends.device_type(Backend.TRITON), dtype=torch.float32)


def _inspect() -> None:
    backends.inspect_libraries({name: row.parts for name, row in OPERATORS.items()})


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setattr(native, "reason", lambda name: f"{name} is not there")
    _inspect()
    yield
    monkeypatch.undo()
    _inspect()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(backends.ENVIRONMENT_VARIABLE, raising=False)


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("op", OPERATORS)
def test_the_cpu_library_serves_every_operator(op, dtype) -> None:
    if native.available("cpu"):
        assert supports(op, "cpu", device_type="cpu", dtype=dtype) is None
        assert resolve(op, "auto", device_type="cpu", dtype=dtype) is Backend.CPU
    else:
        assert native.reason("cpu") in supports(op, "cpu", device_type="cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("op", OPERATORS)
def test_triton_serves_every_operator(op, dtype) -> None:
    place = TRITON["device_type"]
    if native.available("triton"):
        assert supports(op, "triton", device_type=place, dtype=dtype) is None
    else:
        assert native.reason("triton") in supports(op, "triton", device_type=place, dtype=dtype)


@pytest.mark.parametrize("op", OPERATORS)
def test_auto_never_interprets(op) -> None:
    assert resolve(op, "auto", **CPU) is not Backend.TRITON


@pytest.mark.parametrize("op", OPERATORS)
def test_the_reference_serves_everything(op) -> None:
    for device_type in ("cpu", "cuda", "mps", "meta"):
        for dtype in (*LOW_DTYPES, torch.float64):
            assert supports(op, "reference", device_type=device_type, dtype=dtype) is None


def test_reasons() -> None:
    assert "runs on cpu tensors, got cuda" in supports(
        "mbconv", "cpu", device_type="cuda", dtype=torch.float32
    )
    assert "runs on cuda tensors, got cpu" in supports("mbconv", "cuda", **CPU)
    assert "got float64" in supports("mbconv", "cpu", device_type="cpu", dtype=torch.float64)
    other = "cuda" if TRITON["device_type"] == "cpu" else "cpu"
    assert supports("mbconv", "triton", device_type=other, dtype=torch.float16) == (
        f"backend triton runs on {TRITON['device_type']} tensors, got {other}"
    )


def test_auto_prefers_native_and_leaves_float64_to_the_reference() -> None:
    assert resolve("mbconv", "auto", device_type="cpu", dtype=torch.float64) is Backend.REFERENCE
    assert resolve("mbconv", "auto", device_type="meta", dtype=torch.float32) is Backend.REFERENCE


def test_without_a_library_auto_is_the_reference_and_cpu_says_why(no_library) -> None:
    assert resolve("depthwise_conv", "auto", **CPU) is Backend.REFERENCE
    with pytest.raises(
        RuntimeError, match=r"effnet_fast.depthwise_conv: backend cpu cannot serve.*: cpu is not there"
    ):
        ops.depthwise_conv(*make_args("depthwise_conv"), backend="cpu")
    assert supports("depthwise_conv", "triton", **TRITON) == "triton is not there"
    y = ops.depthwise_conv(*make_args("depthwise_conv"))
    assert torch.equal(y, ops.depthwise_conv(*make_args("depthwise_conv"), backend="reference"))


def test_environment_overrides_auto_only(monkeypatch) -> None:
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "reference")
    assert resolve("mbconv", "auto", **CPU) is Backend.REFERENCE
    if native.available("cpu"):
        assert resolve("mbconv", "cpu", **CPU) is Backend.CPU
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "cuda")
    with pytest.raises(RuntimeError, match="EFFNET_FAST_BACKEND=cuda cannot serve this call"):
        resolve("mbconv", "auto", **CPU)
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "gpu")
    with pytest.raises(
        ValueError, match="backend = 'gpu', expected one of auto, cuda, triton, cpu, reference"
    ):
        resolve("mbconv", "auto", **CPU)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="backend = 'fast', expected one of"):
        ops.depthwise_conv(*make_args("depthwise_conv"), backend="fast")
    with pytest.raises(ValueError, match="unknown operator 'conv'; known operators: depthwise_conv,"):
        supports("conv", "cpu", **CPU)
    with pytest.raises(ValueError, match="needs a backend by name"):
        supports("mbconv", "auto", **CPU)


def test_a_composed_operator_needs_its_parts(monkeypatch) -> None:
    monkeypatch.setattr(native, "reason", lambda name: "")
    kernels = {"depthwise_conv_pool_into", "depthwise_conv_into", "pointwise_conv_into"}
    monkeypatch.setattr(backends, "has_kernel", lambda name, backend: name in kernels)
    _inspect()
    try:
        assert supports("expand_depthwise_pool", "cpu", **CPU) is None
        assert supports("depthwise_conv_gate", "cpu", **CPU) == (
            "the cpu backend has no kernel for squeeze_excite_gate"
        )
        assert supports("mbconv", "cpu", **CPU) == "the cpu backend has no kernel for squeeze_excite_gate"
        assert supports("mbconv", "triton", **TRITON) == (
            "the triton backend has no kernel for squeeze_excite_gate"
        )
        assert resolve("mbconv", "auto", **CPU) is Backend.REFERENCE
    finally:
        monkeypatch.undo()
        _inspect()


def test_handles() -> None:
    assert ops.handle("mbconv", "packed_into", "cpu") is torch.ops.effnet_fast.mbconv_packed_into.default
    twin = torch.ops.effnet_fast.mbconv_packed_into_triton.default
    assert ops.handle("mbconv", "packed_into", "triton") is twin
    args = make_args("depthwise_conv")
    assert torch.equal(
        ops.handle("depthwise_conv", "", "reference")(*args), ops.depthwise_conv(*args, backend="reference")
    )
    with pytest.raises(ValueError, match="variant = 'out', expected one of"):
        ops.handle("mbconv", "out", "cpu")
    with pytest.raises(ValueError, match="needs a resolved backend"):
        ops.handle("mbconv", "", "auto")
    with pytest.raises(ValueError, match="unknown operator"):
        ops.handle("conv", "", "cpu")
