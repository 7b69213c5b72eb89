"""What the report says of expand_depthwise: instructions of its two phases, and the rules they must keep."""

from __future__ import annotations

import pytest

from benchmarks.resources import cuda, cuda_rules
from benchmarks.resources.machine_code import Code, Instruction

KERNEL = "expand_depthwise_kernel<ExpandDepthwiseTraits<half, 3, 1, 48, 7, true, true>>"


def code(*names: str) -> Code:
    """Instructions at 0, 16, ...; "BRA:n" branches to the n-th of them."""
    instructions = []
    for place, name in enumerate(names):
        family, _, target = name.partition(":")
        instructions.append(Instruction(16 * place, family, 16 * int(target) if target else None))
    return Code(tuple(instructions))


# A loop over chunks, from 1 on, with two over products (12 and 18 of them) and two over places inside.
EXPANSION = ["HMMA"] * 12 + ["MUFU.TANH"] * 8 + ["FFMA"] * 5 + ["BRA:2"]
LONGER = ["HMMA"] * 18 + ["MUFU.TANH"] * 5 + ["BRA:28"]
FILTER = ["HMMA"] * 20 + ["STG.E.64"] * 7 + ["BRA:52"]
MASKED = ["HMMA"] * 20 + ["ISETP"] * 9 + ["STG.E.64"] * 7 + ["BRA:80"]
FUSED = code("LDG", "BAR", *EXPANSION, *LONGER, *FILTER, *MASKED, "BRA:1", "EXIT")


def test_phases_are_the_innermost_loops_with_products() -> None:
    assert [len(loop) for loop in FUSED.innermost_loops()] == [26, 24, 28, 37]
    # 24 values and 56 outputs of a lane.
    assert cuda.fused_slots(FUSED, KERNEL) == {"per_value": round(26 / 24, 2), "per_output": 28 / 56}


def test_other_kernels_have_no_phases() -> None:
    assert cuda.fused_slots(FUSED, "depthwise_conv_kernel<DepthwiseConvTraits<half, 3, 1, true>>") is None


def test_code_without_such_loops_is_not_passed_over() -> None:
    with pytest.raises(cuda.ToolkitError, match="no loop for a phase"):
        cuda.fused_slots(code("LDG", "HMMA", "EXIT"), KERNEL)


def row(**changed) -> dict:
    right = {
        "device": "sm_90", "storage": "float16", "kernel": KERNEL, "spilled_bytes": 0, "shared_bytes": [],
        "occupancy": [], "tf32": False, "matrix": {"HMMA": 9}, "mufu": {"MUFU.TANH": 9}, "prefetched": 3,
        "loop": None, "fused": {"per_value": 3.46, "per_output": 8.0},
    }  # fmt: skip
    return right | changed


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"fused": {"per_value": 3.7, "per_output": 8.0}},
            "3.7 instructions for an expanded value, allowed: 3.6",
        ),
        (
            {"fused": {"per_value": 3.46, "per_output": 9.5}},
            "9.5 instructions for an output of the depthwise convolution, allowed: 9",
        ),
        ({"matrix": {}}, "no HMMA, but no matrix instruction"),
        ({"prefetched": 0}, "no weights are loaded before the wait for the launch before"),
        ({"spilled_bytes": 8}, "8 bytes of a thread spill"),
    ],
)
def test_rules(changed, sentence) -> None:
    assert cuda_rules.broken([row()]) == []
    assert cuda_rules.broken([row(**changed)]) == [f"sm_90 {KERNEL}: {sentence}"]
