"""What the interpreter hides: NaN handling, TF32, the tangent of SiLU and wide accesses in compiled code."""

from __future__ import annotations

import importlib
import math
import re

import pytest
import torch

from effnet_fast.inference.kernel_calls import kernel_calls
from effnet_fast.inference.layers import Layer, Value
from effnet_fast.triton_kernels.device import ARCHITECTURES
from effnet_fast.triton_kernels.offline import key_of
from tests.triton.compiling import compile_records

DEVICE = ARCHITECTURES[90]
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
OPERATORS = ("pointwise_conv", "depthwise_conv")
CLAMPS = {"relu": ("max",), "relu6": ("max", "min"), "hardswish": ("max", "min")}

CASES = [
    *[(operator, "float16", activation, 24) for operator in OPERATORS for activation in CLAMPS],
    *[(operator, dtype, "silu", 40) for operator in OPERATORS for dtype in DTYPES],
    *[(operator, "float16", "silu", channels) for operator in OPERATORS for channels in (24, 27)],
]


def _record(operator: str, dtype: str, activation: str, channels: int) -> dict:
    """The key of a layer of 32 images of 28 x 28."""
    x = Value("x", (channels, 28, 28))
    kernel = {"kernel": 3, "padding": (1, 1, 1, 1)} if operator == "depthwise_conv" else {}
    layer = Layer("l", "b", operator, x, Value("y", (channels, 28, 28)), activation, **kernel)
    (call,) = kernel_calls(layer, 32, DTYPES[dtype], DTYPES[dtype])
    module = importlib.import_module(f"effnet_fast.triton_kernels.{operator}")
    (launch,) = module.launches(DEVICE, call.outputs, *call.arguments)
    return key_of(launch).record()


@pytest.fixture(scope="module")
def compiled() -> dict:
    """Case -> its key and what it compiled to, all in one process."""
    records = [_record(*case) for case in CASES]
    answers = compile_records([(DEVICE.name, record) for record in records])["answers"]
    return {case: record | answer for case, record, answer in zip(CASES, records, answers, strict=True)}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("activation", CLAMPS)
def test_clamps_keep_a_nan(compiled, operator, activation):
    ptx = compiled[operator, "float16", activation, 24]["ptx"]
    for instruction in CLAMPS[activation]:
        assert f"{instruction}.NaN.f32" in ptx
    # The plain instruction returns whichever operand is a number.
    assert not re.search(r"\b(min|max)\.(f32|f16)", ptx)


@pytest.mark.parametrize("operator", OPERATORS)
def test_float32_is_multiplied_in_float32(compiled, operator):
    case = compiled[operator, "float32", "silu", 40]
    assert not re.search(r"\bw?g?mma", case["ptx"])
    assert not case["tf32"]
    assert not case["matrix"]
    assert case["ffma"] > 0


def _outputs_a_thread(case: dict) -> float:
    constants = case["constants"]
    sides = [constants[name] for name in ("ROWS", "COLUMNS", "CHANNELS") if name in constants]
    return math.prod(sides) / (32 * case["warps"])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_silu_is_one_special_function_an_output(compiled, operator, dtype):
    case = compiled[operator, dtype, "silu", 40]
    outputs = _outputs_a_thread(case)
    assert case["ptx"].count("tanh.approx.f32") == outputs
    assert case["mufu"]["MUFU.TANH"] == outputs
    assert not {"MUFU.EX2", "MUFU.LG2"} & set(case["mufu"])


@pytest.mark.parametrize("operator", OPERATORS)
def test_float32_silu_does_not_approximate_the_tangent(compiled, operator):
    case = compiled[operator, "float32", "silu", 40]
    assert "tanh.approx" not in case["ptx"]
    assert case["mufu"]["MUFU.EX2"] == _outputs_a_thread(case)


@pytest.mark.parametrize("channels", [24, 40])
def test_pixels_of_24_and_40_channels_are_read_16_bytes_at_a_time(compiled, channels):
    case = compiled["pointwise_conv", "float16", "silu", channels]
    block_bytes = 2 * case["constants"]["ROWS"] * case["constants"]["DEPTH"]
    assert case["wide_loads"] >= block_bytes / (16 * 32 * case["warps"])
    assert case["wide_stores"] == case["stores"] > 0


def test_27_channels_are_not(compiled):
    # 54 bytes a pixel: were this one wide too, the test above would show nothing.
    case = compiled["pointwise_conv", "float16", "silu", 27]
    assert case["wide_stores"] == 0


@pytest.mark.parametrize(("channels", "scalar"), [(24, False), (40, False), (27, True)])
def test_depthwise_reads_several_channels_at_a_time(compiled, channels, scalar):
    ptx = compiled["depthwise_conv", "float16", "silu", channels]["ptx"]
    assert bool(re.search(r"ld\.global\S*\.b16 ", ptx)) == scalar
