"""The one rounding of a result: to the nearest value of the storage type, ties to even."""

from __future__ import annotations

import triton
import triton.language as tl

from effnet_fast import native

_INTERPRETED = tl.constexpr(native.INTERPRETS_TRITON)


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """float32 `x` as `dtype`."""
    if _INTERPRETED and dtype == tl.bfloat16:
        # Triton 3.6's interpreter cuts the low bits off; a GPU rounds. A NaN has nothing to round.
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)
