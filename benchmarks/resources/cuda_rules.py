"""What a compiled CUDA kernel must fulfil: the rules by which the report, and its test, fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from benchmarks.resources.cuda import MULTIPROCESSORS, RESERVED_SHARED_BYTES

Row = Mapping[str, object]

#: Kernels whose products of 16-bit values are for tensor cores.
MATRIX_KERNELS = ("pointwise_conv_kernel", "head_pool_kernel", "stem_conv_kernel")

#: Instructions for an output of a depthwise convolution, by kernel size and stride. At stride 1 an H200
#: copies the 4 bytes of a 16-bit input and output in the time of 27: 3x3 is to be bound by memory alone.
MOST_SLOTS = {(3, 1): 18.0, (5, 1): 36.0}
TARGET_DEVICE = "sm_90"

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
    if row["loop"]:
        yield from _broken_loop(row)
    elif is_silu(row) and ("MUFU.TANH" not in row["mufu"] or "MUFU.EX2" in row["mufu"]):
        yield f"SiLU is {', '.join(row['mufu'])}, expected MUFU.TANH"


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
