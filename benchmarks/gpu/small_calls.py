"""`python -m benchmarks.gpu.small_calls BACKEND`: every kernel of a backend once, on small shapes.

Run by itself it is a smoke test; it is made for tools that slow a GPU down a hundred times.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from effnet_fast import backends
from effnet_fast.testing import Expectation, Target, make_args

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

#: Channels: whole vectors with a tail of a tile, and odd ones, for which the general kernels are.
CHANNELS = (40, 27)

#: Of each operator: the sizes and scalars that choose another kernel or another path in one.
CASES: dict[str, tuple[dict[str, Any], ...]] = {
    "depthwise_conv": tuple(
        {"k": k, "stride": stride, "h": 13, "w": 19, "activation": activation}
        for k in (3, 5, 7)
        for stride, activation in ((1, "silu"), (2, "hardswish"))
    ),
    "depthwise_conv_pool": (
        {"k": 3, "h": 17, "w": 33},
        {"k": 5, "stride": 2, "h": 20, "w": 9, "activation": "relu6"},
    ),
    "depthwise_conv_gate": (
        {"k": 3, "h": 17, "w": 9, "s": 10},
        {"k": 5, "stride": 2, "h": 20, "w": 9, "s": 6},
    ),
    "squeeze_excite_gate": ({"s": 10, "h": 7, "w": 7}, {"s": 6, "h": 70, "w": 70, "n": 3}),
    "pointwise_conv": (
        {"o": 136, "h": 9, "w": 9, "activation": "silu", "without": ("gate", "residual")},
        {"o": 24, "h": 9, "w": 9, "activation": "identity"},
        {"o": 72, "h": 40, "w": 40, "activation": "relu", "without": ("gate",)},
    ),
    "dense_conv": ({"k": 3, "o": 24, "h": 9, "w": 9}, {"k": 3, "stride": 2, "o": 40, "h": 9, "w": 9}),
    "stem_conv": (
        {"k": 3, "stride": 2, "c": 3, "o": 32, "h": 33, "w": 35},
        {"k": 5, "c": 4, "o": 27, "h": 9, "w": 9},
    ),
    "head_pool": ({"o": 200, "h": 7, "w": 7, "n": 3}, {"o": 24, "h": 1, "w": 1, "activation": "identity"}),
}


def calls() -> Iterator[tuple[str, torch.dtype, list[Any]]]:
    """Operator, storage dtype, and arguments on the CPU."""
    for operator, cases in CASES.items():
        for given in cases:
            for channels in (given["c"],) if "c" in given else CHANNELS:
                for dtype in DTYPES:
                    yield operator, dtype, make_args(operator, dtype=dtype, **{**given, "c": channels})


def main(backend: str) -> int:
    reason = backends.supports("pointwise_conv", backend, device_type="cuda", dtype=torch.float32)
    if reason is not None:
        sys.stdout.write(f"not run: {reason}\n")
        return 0
    count = 0
    for operator, dtype, args in calls():
        if backends.supports(operator, backend, device_type="cuda", dtype=dtype) is not None:
            continue
        result = Target(backend, packed=True).run(operator, args)
        torch.cuda.synchronize()
        Expectation.of(operator, args).assert_within(result)
        count += 1
    sys.stdout.write(f"{count} calls of {backend} are right\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
