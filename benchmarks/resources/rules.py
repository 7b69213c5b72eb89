"""What a compiled kernel must fulfil: the rules by which the report, and its test, fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

Row = Mapping[str, object]

#: Operators that multiply matrices in the storage type, and the constants whose product is a block's rows.
MATRIX_ROWS = {
    "pointwise_conv": ("ROWS",),
    "dense_conv": ("ROWS",),
    "stem_conv": ("LINES", "PIXELS"),
    "head_pool": ("IMAGES", "PIXELS"),
}

#: Compilations that B0..B7 at all batches may need in one storage type: each costs half a second when a layer
#: first meets it, so block sizes come from few values.
MOST_KEYS = 50

#: Least rows of wgmma (sm_90) and of tcgen05 (sm_100), which four warps issue together.
GROUP_ROWS = 64
GROUP_INSTRUCTIONS = {"sm_90": "HGMMA", "sm_100": "UTCHMMA"}


def broken(rows: Iterable[Row], shared_limits: Mapping[str, int]) -> list[str]:
    """Sentences about rows that break a rule; `shared_limits` by device."""
    found = []
    keys: Counter[tuple[str, str]] = Counter()
    for row in rows:
        place = f"{row['device']} {title(row)}"
        found += [f"{place}: {sentence}" for sentence in _broken_by(row, shared_limits[row["device"]])]
        keys.update((row["device"], storage) for storage in row["storages"])
    found += [
        f"{device}: B0..B7 in {storage} need {count} compilations, allowed: {MOST_KEYS}"
        for (device, storage), count in keys.items()
        if count > MOST_KEYS
    ]
    return found


def _broken_by(row: Row, shared_limit: int) -> Iterable[str]:
    if row["spilled_bytes"]:
        yield f"{row['spilled_bytes']} bytes of a thread spill"
    if row["shared_bytes"] > shared_limit:
        yield f"{row['shared_bytes']} bytes of shared memory, allowed: {shared_limit}"
    if row["tf32"]:
        yield "float32 values are rounded to TF32"
    instruction = matrix_instruction(row)
    if instruction and instruction not in row["matrix"]:
        yield f"no {instruction}, but {', '.join(row['matrix']) or 'no matrix instruction'}"


def matrix_instruction(row: Row) -> str | None:
    """What the matrix product of `row` must use; None where it is not one of 16-bit values."""
    if row["operator"] not in MATRIX_ROWS or is_single(row):
        return None
    rows = math.prod(row["constants"][name] for name in MATRIX_ROWS[row["operator"]])
    if row["device"].startswith("gfx"):
        return "MFMA"
    if rows >= GROUP_ROWS and row["warps"] % 4 == 0:
        return GROUP_INSTRUCTIONS.get(row["device"], "HMMA")
    return "HMMA"


def is_single(row: Row) -> bool:
    """Whether the kernel's maps and weights are float32."""
    return not {"*fp16", "*bf16"} & set(row["arguments"].values())


def title(row: Row) -> str:
    """`row`'s kernel with its types and blocks, in a line."""
    types = ",".join("-" if kind is None else kind for kind in row["arguments"].values())
    constants = ",".join(f"{name}={value}" for name, value in row["constants"].items())
    return f"{row['kernel']}({types};{constants})@{row['warps']}x{row['stages']}"
