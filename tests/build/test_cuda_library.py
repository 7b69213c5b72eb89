"""The compiled CUDA library on any machine: it loads without a GPU, and implements what the table says."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch
from click.testing import CliRunner

from effnet_fast import backends, native, ops
from effnet_fast.backends import Backend
from effnet_fast.cli import main
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS, overload
from effnet_fast.ops.validation import check
from effnet_fast.testing import Target, make_args

# With a kernel of their own; the rest of the table is composed of these, but for dense_conv.
IMPLEMENTED = {
    "depthwise_conv", "depthwise_conv_pool", "depthwise_conv_gate", "pointwise_conv", "stem_conv",
    "squeeze_excite_gate", "head_pool", "expand_depthwise", "expand_depthwise_pool", "stem_block_sums",
    "stem_block",
}  # fmt: skip
# And what is composed of it.
WITHOUT_KERNEL = ("dense_conv", "fused_mbconv")


def test_it_is_built_and_loads() -> None:
    assert native.reason("cuda") == ""


def test_it_needs_no_library_that_pytorch_does_not_bring() -> None:
    path = native.load()["cuda"].path
    dynamic = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    assert "libcudart.so" in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


def test_its_symbols_are_of_the_stable_abi() -> None:
    path = native.load()["cuda"].path
    command = ["nm", "-D", "--undefined-only", "--demangle", path]
    symbols = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "aoti_torch_get_current_cuda_stream" in symbols
    assert [line for line in symbols.splitlines() if "at::" in line or "c10::" in line] == []


def test_it_implements_the_table() -> None:
    for op, row in OPERATORS.items():
        names = {row.dispatcher_name("into"), row.dispatcher_name("packed_into")}
        if row.packed_as is None:
            names.add(row.pack_name)
        found = {name for name in names if backends.has_kernel(name, Backend.CUDA)}
        assert found == (names if op in IMPLEMENTED else set())


@pytest.mark.parametrize("op", OPERATORS)
def test_what_it_serves(op) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        reason = backends.supports(op, "cuda", device_type="cuda", dtype=dtype)
        assert reason == ("the cuda backend has no kernel for dense_conv" if op in WITHOUT_KERNEL else None)


@pytest.mark.parametrize("op", sorted(IMPLEMENTED))
def test_it_refuses_other_memory_than_a_gpus(op) -> None:
    row, args = OPERATORS[op], make_args(op)
    outputs = allocate(row, *check(row, "", args))
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    args = Target("reference").pack_arguments(op, args)
    # The kernel itself, which must take as many arguments as the schema has.
    with pytest.raises(RuntimeError, match="given a tensor that is not on a GPU"):
        overload(row.dispatcher_name("packed_into")).redispatch(key, *outputs, *args)


def test_a_call_on_cpu_tensors_says_so() -> None:
    with pytest.raises(RuntimeError, match="backend cuda runs on cuda tensors, got cpu"):
        ops.pointwise_conv(*make_args("pointwise_conv"), backend="cuda")


def test_packing_for_an_instruction_set_is_refused() -> None:
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with pytest.raises(ValueError, match="isa = 'avx2', expected auto"):
        overload("pack_head_pool").redispatch(key, torch.zeros(8, 8, 1, 1), None, "silu", "avx2")


def test_info_tells() -> None:
    result = CliRunner().invoke(main, ["info", "--json"])
    assert result.exit_code == 0
    record = json.loads(result.output)
    assert record["backends"]["cuda"] == "available"
    assert record["build"]["_C_cuda"].startswith("loaded (_C_cuda")
