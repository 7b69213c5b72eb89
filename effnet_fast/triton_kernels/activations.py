"""Activations and gates inside Triton kernels, on float32 values.

`HALVED` says that the accumulator holds half of the value that a SiLU is taken of (see
`effnet_fast.ops.device_weights`): ``silu(2 h) = h + h tanh(h)``, one special-function instruction and one
multiply-add where ``x * sigmoid(x)`` needs two of the first and six others. tanh.approx has a relative error
of 2**-11 (PTX ISA), so |error| <= |h| 2**-11: half a float16 unit in the last place of the value itself.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tanh(x, TANH: tl.constexpr):
    if TANH:
        # One instruction, and no intrinsic of Triton's; neither the interpreter nor AMD's compiler has it.
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _clamp_six(x):
    """min(max(x, 0), 6), in which a NaN stays a NaN: the plain instructions would drop it."""
    positive = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(positive, 6.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr, HALVED: tl.constexpr, TANH: tl.constexpr):
    """`ACTIVATION` of a float32 tensor."""
    if ACTIVATION == "silu":
        if HALVED:
            return x + x * _tanh(x, TANH)
        return x * tl.sigmoid(x)
    if ACTIVATION == "relu":
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if ACTIVATION == "relu6":
        return _clamp_six(x)
    if ACTIVATION == "hardswish":
        return x * _clamp_six(x + 3.0) * (1.0 / 6.0)
    return x


@triton.jit
def gate_function(x, GATE: tl.constexpr):
    """`GATE` of a float32 tensor."""
    if GATE == "sigmoid":
        return tl.sigmoid(x)
    return _clamp_six(x + 3.0) * (1.0 / 6.0)
