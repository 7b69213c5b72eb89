"""How a kernel is cut into blocks, per shape: frozen dataclasses, and pure functions that choose one.

One module per operator, each with

- a ``Problem``: the numbers of one call that matter, with `kind` (what must agree for two problems to be the
  same compilation) and `size` (what may differ, compared as logarithms);
- a ``Config``: block sizes, warps, pipeline stages;
- ``heuristic(problem, device) -> Config``, a function of numbers that asks no driver and measures nothing;
- ``candidates(problem, device) -> list[Config]``: what ``effnet-fast tune`` tries, the heuristic's first.

Nothing here imports Triton. Every field of a configuration is a compile-time constant and multiplies the
number of compilations, so block sizes come from few values, and channels, heights and widths are run-time
values: all layers of B0..B7 need about 40 compilations a storage type.
"""

from __future__ import annotations

from typing import Any

from effnet_fast.triton_kernels.device import Device

from . import dense_conv, depthwise_conv, head_pool, pointwise_conv, squeeze_excite_gate, stem_conv, tuned

#: Operator -> its module here.
MODULES = {
    "dense_conv": dense_conv,
    "depthwise_conv": depthwise_conv,
    "head_pool": head_pool,
    "pointwise_conv": pointwise_conv,
    "squeeze_excite_gate": squeeze_excite_gate,
    "stem_conv": stem_conv,
}


def choose(problem: Any, device: Device) -> Any:
    """The configuration for `problem` on `device`: a measured one if there is one, else the heuristic's."""
    module = MODULES[problem.operator]
    return tuned.lookup(problem, device) or module.heuristic(problem, device)
