"""Packed weights: whatever they are packed for, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from effnet_fast import native, ops
from effnet_fast.ops import containers
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Target, devices, make_args, targets


@pytest.mark.parametrize("op", OPERATORS)
def test_packed_weights_are_bytes_that_may_be_moved(op, packed_target) -> None:
    args = packed_target.pack_arguments(op, make_args(op))
    at = [parameter.name for parameter in OPERATORS[op].packed_parameters].index("packed")
    packed = args[at]
    assert (packed.dtype, packed.dim(), packed.requires_grad) == (torch.uint8, 1, False)
    function = ops.handle(op, "packed", packed_target.backend)
    expected = function(*args)
    arena = torch.zeros(packed.numel() + 192, dtype=torch.uint8, device=packed_target.device)
    args[at] = arena[128 : 128 + packed.numel()].copy_(packed)
    moved = function(*args)
    for a, b in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (expected, moved)), strict=True):
        assert torch.equal(a, b)


def _pack(target: Target, op: str, *weights: torch.Tensor) -> torch.Tensor:
    return ops.pack(op, *weights, backend=target.backend, isa=target.isa)


@pytest.mark.parametrize("isa", native.cpu_isas())
def test_float32_weights_that_bfloat16_holds_take_half_the_memory(isa) -> None:
    """A classifier of a 16-bit network reads little else than its weights. 16 registers do not suffice."""
    whole = torch.randn(96, 64)
    rounded = whole.bfloat16().float()
    one_more = rounded.clone()
    one_more[95, 63] = 1 + 2**-12
    sizes = [
        ops.pack("pointwise_conv", weight, backend="cpu", isa=isa).numel()
        for weight in (whole, one_more, rounded)
    ]
    assert sizes[0] == sizes[1]
    assert sizes[0] - sizes[2] == (whole.numel() * 2 if isa.startswith("avx512") else 0)


@pytest.mark.parametrize("isa", [isa for isa in native.cpu_isas() if isa.startswith("avx512")])
def test_halved_weights_are_refused_by_kernels_that_do_not_read_them(isa) -> None:
    packed = ops.pack("pointwise_conv", torch.ones(16, 8), backend="cpu", isa=isa)
    x = torch.ones(1, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    with pytest.raises((ValueError, RuntimeError), match="packed holds the weights of another operator"):
        ops.handle("head_pool", "packed", "cpu")(x, packed, 16, "identity")


def test_packing_does_not_track_gradients(packed_target) -> None:
    weight = torch.randn(8, 1, 3, 3, requires_grad=True, device=packed_target.device)
    packed = _pack(packed_target, "depthwise_conv", weight)
    assert not packed.requires_grad


def test_packed_for_another_operator_is_refused(packed_target) -> None:
    x, weight = packed_target.place([torch.randn(1, 8, 5, 5), torch.randn(8, 8)])
    packed = _pack(packed_target, "pointwise_conv", weight)
    function = ops.handle("depthwise_conv", "packed", packed_target.backend)
    with pytest.raises((ValueError, RuntimeError), match="packed"):
        function(x, packed, 3, 1, (1, 1, 1, 1), "identity")


def test_geometry_that_disagrees_with_the_weights_is_refused(packed_target) -> None:
    x, weight = packed_target.place([torch.randn(1, 8, 5, 5), torch.randn(16, 8)])
    packed = _pack(packed_target, "pointwise_conv", weight)
    with pytest.raises((ValueError, RuntimeError), match="packed"):
        ops.handle("pointwise_conv", "packed", packed_target.backend)(x, packed, 24, "identity")


def test_dtype_that_disagrees_with_the_weights_is_refused(packed_target) -> None:
    x, weight = packed_target.place([torch.randn(1, 8, 5, 5).half(), torch.randn(16, 8)])
    packed = _pack(packed_target, "pointwise_conv", weight)
    with pytest.raises((TypeError, RuntimeError), match="dtype"):
        ops.handle("pointwise_conv", "packed", packed_target.backend)(x, packed, 16, "identity")


def test_bytes_that_are_no_weights_are_refused(target) -> None:
    x = torch.randn(1, 8, 5, 5, device=target.device)
    for size in (4096, 3):
        rubbish = torch.zeros(size, dtype=torch.uint8, device=target.device)
        with pytest.raises((ValueError, RuntimeError), match="packed"):
            ops.handle("depthwise_conv", "packed", target.backend)(x, rubbish, 3, 1, (1, 1, 1, 1), "relu")


@pytest.mark.parametrize("device", devices())
def test_weights_of_one_backend_are_refused_by_another(device) -> None:
    x, weight = torch.randn(1, 8, 5, 5, device=device), torch.randn(8, 1, 3, 3, device=device)
    backends = dict.fromkeys(target.backend for target in targets() if target.device == device)
    blobs = {backend: ops.pack("depthwise_conv", weight, backend=backend) for backend in backends}
    for backend in blobs:
        for other, blob in blobs.items():
            function = ops.handle("depthwise_conv", "packed", backend)
            if other == backend:
                function(x, blob, 3, 1, (1, 1, 1, 1), "identity")
            else:
                with pytest.raises((ValueError, RuntimeError), match="packed"):
                    function(x, blob, 3, 1, (1, 1, 1, 1), "identity")


def test_bad_calls_of_pack() -> None:
    weight = torch.randn(8, 1, 3, 3)
    with pytest.raises(ValueError, match="unknown operator 'conv'"):
        ops.pack("conv", weight)
    with pytest.raises(ValueError, match="got 3 weights, expected at most 2: weight, bias"):
        ops.pack("depthwise_conv", weight, None, None)
    with pytest.raises(ValueError, match="activation = 'gelu'"):
        ops.pack("depthwise_conv", weight, activation="gelu")
    with pytest.raises(ValueError, match=r"bias has shape \[7\]"):
        ops.pack("depthwise_conv", weight, torch.zeros(7))
    with pytest.raises(ValueError, match="kernel size 4 is even"):
        ops.pack("depthwise_conv", torch.randn(8, 1, 4, 4))
    with pytest.raises(TypeError, match="weight must be a Tensor, got NoneType"):
        ops.pack("depthwise_conv", None)
    with pytest.raises(TypeError, match="weight has dtype int64"):
        ops.pack("pointwise_conv", torch.zeros(8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="isa = 'avx2', backend reference accepts auto"):
        ops.pack("depthwise_conv", weight, backend="reference", isa="avx2")
    with pytest.raises(RuntimeError, match="backend cuda cannot serve"):
        ops.pack("depthwise_conv", weight, backend="cuda")
    if native.available("cpu"):
        with pytest.raises(ValueError, match="isa = 'sse2', backend cpu accepts auto,"):
            ops.pack("depthwise_conv", weight, backend="cpu", isa="sse2")


def test_activation_is_part_of_the_reference_weights() -> None:
    args = Target("reference", packed=True).pack_arguments("depthwise_conv", make_args("depthwise_conv"))
    with pytest.raises(ValueError, match="packed was not made for pack_depthwise_conv:relu"):
        ops.handle("depthwise_conv", "packed", "reference")(*args[:-1], "relu")


def test_container_keeps_every_dtype_rank_and_absence() -> None:
    tensors = [
        torch.randn(3, 1, 5, 5).half(), None, torch.randn(7).double(), torch.randn(2, 3).bfloat16(),
        torch.arange(200, dtype=torch.uint8), torch.tensor(3.5),
    ]  # fmt: skip
    blob = containers.write(containers.PARTS, "test", tensors)
    for place in (blob, torch.cat([torch.zeros(3, dtype=torch.uint8), blob])[3:]):
        read = containers.read(place, containers.PARTS, "test")
        for a, b in zip(tensors, read, strict=True):
            assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))
    with pytest.raises(ValueError, match="was not made for other"):
        containers.read(blob, containers.PARTS, "other")
    with pytest.raises(ValueError, match="does not hold the weights of test"):
        containers.read(blob, containers.WEIGHTS, "test")
    assert containers.kind_of(blob) == containers.PARTS
    assert containers.kind_of(torch.zeros(256, dtype=torch.uint8)) is None


_UNPACKED_SCRIPT = """
import torch
from effnet_fast import native
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import LOW_DTYPES, Expectation, Target, make_args

torch.use_deterministic_algorithms(True)
for op in OPERATORS:
    for dtype in LOW_DTYPES:
        args = make_args(op, dtype=dtype, c=27, m=35, o=19, h=18, w=5, k=5, stride=2)
        Expectation.of(op, args).assert_within(Target("cpu").run(op, args))
print(native.cpu_isa())
"""


@pytest.mark.parametrize("isa", [isa for isa in native.cpu_isas() if isa != native.cpu_isa()])
def test_unpacked_calls_run_the_instruction_set_of_the_environment(isa) -> None:
    environment = {**os.environ, "EFFNET_FAST_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _UNPACKED_SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == isa
