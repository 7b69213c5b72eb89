"""The least time of a whole network: what no implementation can beat, whatever it fuses."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch

from benchmarks.cases import DTYPES
from benchmarks.devices import give_memory_back
from benchmarks.limits import Limits, arithmetic_seconds, copy_bandwidth, measure_limits
from benchmarks.rows import OK, milliseconds
from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.cost import work
from effnet_fast.inference.layers import Layer
from effnet_fast.models import create_model


def measure_all(device: str, dtypes: Sequence[str], threads: int) -> dict[str, Limits]:
    """The limits of `device` for each dtype, of a CPU with `threads`, measured within seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        copy = copy_bandwidth(device)
        return {dtype: measure_limits(device, dtype, copy=copy) for dtype in dict.fromkeys(dtypes)}
    finally:
        torch.set_num_threads(before)
        give_memory_back(device)


@functools.lru_cache(maxsize=4)
def _layers(model: str, side: int) -> tuple[Layer, ...]:
    """The layers of a network whose batch norms are folded."""
    with torch.device("meta"):
        network = fold(create_model(model).eval())
    return tuple(network_layers(network, (side, side)))


def floor_columns(row: Mapping[str, object], limits: Limits) -> dict[str, object]:
    """Columns of the floor for a row that has a time.

    Its arithmetic at the measured peaks, or images, weights and logits, each once, at the bandwidth of a
    copy: whichever takes longer. The maps in between are left out: a kernel that is large enough keeps them.
    """
    batch, dtype, side = int(row["batch"]), str(row["dtype"]), int(row["image_size"])
    layers = _layers(str(row["model"]), side)
    # All in the dtype: our kernels keep biases, squeeze-excite and classifier in float32, others need not.
    weights = sum(work(layer, 1, torch.float32, torch.float32).bytes_weights for layer in layers) // 4
    values = weights + batch * (3 * side**2 + layers[-1].y.shape[0])
    memory = values * DTYPES[dtype].itemsize / limits.copy_bytes_per_second
    arithmetic = arithmetic_seconds(layers, batch, dtype, limits.arithmetic) or 0.0
    least = max(memory, arithmetic)
    return {
        "floor_ms": milliseconds(least),
        "floor_bound": "memory" if memory > arithmetic else "arithmetic",
        "of_floor": round(1e3 * least / row["median_ms"], 4),
    }


def add_floors(rows: Sequence[dict[str, object]], limits: Mapping[str, Limits]) -> None:
    """Give every timed row without a floor its own; `limits` by dtype."""
    for row in rows:
        if row["status"] == OK and "of_floor" not in row and row["dtype"] in limits:
            row.update(floor_columns(row, limits[str(row["dtype"])]))
