"""What a compiled CUDA kernel must fulfil: the rules by which the report, and its test, fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from benchmarks.resources.cuda import MULTIPROCESSORS, RESERVED_SHARED_BYTES, fused_shape

Row = Mapping[str, object]

#: Kernels whose products of 16-bit values are for tensor cores.
MATRIX_KERNELS = (
    "expand_depthwise_kernel", "pointwise_conv_kernel", "head_pool_kernel", "stem_block_kernel",
    "stem_conv_kernel",
)  # fmt: skip

#: Kernels that load weights while the launch before them drains, where launches may overlap (from sm_90).
PREFETCHING = (
    "depthwise_conv_kernel", "excite_kernel", "expand_depthwise_kernel", "head_pool_fma_kernel",
    "head_pool_kernel", "pointwise_conv_fma_kernel", "pointwise_conv_kernel", "pointwise_conv_rows_kernel",
    "squeeze_kernel", "stem_block_kernel", "stem_conv_kernel",
)  # fmt: skip
OVERLAPPING = ("sm_90", "sm_100", "sm_120")

#: Instructions for an output of a depthwise convolution, by kernel size and stride. At stride 1 an H200
#: copies the 4 bytes of a 16-bit input and output in the time of 27: 3x3 is to be bound by memory alone.
MOST_SLOTS = {(3, 1): 18.0, (5, 1): 36.0}
TARGET_DEVICE = "sm_90"

#: Instructions of `expand_depthwise` with SiLU: for an expanded value from 24 channels, by channels at a
#: time, over which the loop's own are spread; for an output, by kernel size and rows of an item, of which 4
#: share fewer loads than 7. The special function of a value takes an H200 8 slots.
MOST_EXPAND_SLOTS = {48: 3.6, 32: 3.7, 16: 4.3}
MOST_FUSED_SLOTS = {(3, 7): 9.0, (3, 4): 10.0, (5, 7): 13.0, (5, 4): 16.0}

_DEPTHWISE = re.compile(r"DepthwiseConvTraits<\w+, (\d), (\d), ")
#: The first flag in the traits of every operator: compiled for SiLU alone, on halved weights.
_SILU = re.compile(r"Traits<(?:half|bfloat16)(?:, \d+)*(?:, MatrixTile<[^>]*>)?, true")


def broken(rows: Iterable[Row]) -> list[str]:
    """Sentences about rows that break a rule."""
    return [f"{row['device']} {row['kernel']}: {sentence}" for row in rows for sentence in _broken_by(row)]


def _broken_by(row: Row) -> Iterable[str]:
    single, kernel = row["storage"] == "float32", row["kernel"].partition("<")[0]
    if row["spilled_bytes"]:
        yield f"{row['spilled_bytes']} bytes of a thread spill"
    limit = MULTIPROCESSORS[row["device"]][2] - RESERVED_SHARED_BYTES
    if row["shared_bytes"] and row["shared_bytes"][1] > limit:
        yield f"{row['shared_bytes'][1]} bytes of shared memory, allowed: {limit}"
    if row["occupancy"] and row["occupancy"][0] == 0:
        yield "a block has more threads, registers or shared memory than a multiprocessor"
    if row["tf32"] or (single and row["matrix"]):
        yield "float32 values are multiplied as something else"
    if not single and kernel in MATRIX_KERNELS and not row["matrix"].get("HMMA"):
        yield f"no HMMA, but {', '.join(row['matrix']) or 'no matrix instruction'}"
    if kernel in PREFETCHING and row["device"] in OVERLAPPING and row.get("prefetched") == 0:
        yield "no weights are loaded before the wait for the launch before"
    if row.get("fused") and is_silu(row) and row["device"] == TARGET_DEVICE:
        yield from _broken_phases(row)
    if row["loop"]:
        yield from _broken_loop(row)
    elif is_silu(row) and ("MUFU.TANH" not in row["mufu"] or "MUFU.EX2" in row["mufu"]):
        yield f"SiLU is {', '.join(row['mufu'])}, expected MUFU.TANH"


def _broken_phases(row: Row) -> Iterable[str]:
    value, output = row["fused"]["per_value"], row["fused"]["per_output"]
    kernel, _, chunk, rows = fused_shape(row["kernel"])
    if value > MOST_EXPAND_SLOTS[chunk]:
        yield f"{value} instructions for an expanded value, allowed: {MOST_EXPAND_SLOTS[chunk]:g}"
    most = MOST_FUSED_SLOTS[kernel, rows]
    if output > most:
        yield f"{output} instructions for an output of the depthwise convolution, allowed: {most:g}"


def _broken_loop(row: Row) -> Iterable[str]:
    loop = row["loop"]
    kernel, stride = depthwise_shape(row)
    outputs = loop["outputs"]
    if is_silu(row) and loop["mufu"] != {"MUFU.TANH": outputs}:
        yield f"SiLU of {outputs} outputs is {loop['mufu']}, expected one MUFU.TANH for each"
    # One for each tap, and h + h tanh(h): two issue slots for SiLU, that and the MUFU.
    if is_silu(row) and loop["ffma"] != outputs * (kernel**2 + 1):
        yield f"{loop['ffma']} multiply-adds for {outputs} outputs, expected {outputs * (kernel**2 + 1)}"
    most = MOST_SLOTS.get((kernel, stride))
    if is_silu(row) and row["device"] == TARGET_DEVICE and most and loop["slots_per_output"] > most:
        yield f"{loop['slots_per_output']} instructions for an output, allowed: {most:g}"


def is_silu(row: Row) -> bool:
    """Whether the kernel is for SiLU alone, on halved weights."""
    return _SILU.search(row["kernel"]) is not None


def depthwise_shape(row: Row) -> tuple[int, int]:
    """Kernel size and stride of a row with a loop."""
    kernel, stride = _DEPTHWISE.search(row["kernel"]).groups()
    return int(kernel), int(stride)
