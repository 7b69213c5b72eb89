"""The matrix product of all Triton kernels: float32 accumulation, float32 operands that are never TF32."""

from __future__ import annotations

import triton
import triton.language as tl

from effnet_fast import native

_INTERPRETED = tl.constexpr(native.INTERPRETS_TRITON)


@triton.jit
def dot(x, weight, total):
    """`total` + `x` [rows, depth] @ `weight` [depth, columns]."""
    if _INTERPRETED:
        # Triton 3.6's interpreter multiplies the bits of bfloat16 values; in float32 the products are exact.
        x, weight = x.to(tl.float32), weight.to(tl.float32)
    return tl.dot(x, weight, total, input_precision="ieee")
