"""The committed report of what the CUDA C++ kernels take: complete, within the rules, true of the sources."""

from __future__ import annotations

import pytest

from benchmarks.resources import cuda, cuda_report, cuda_rules, report
from benchmarks.resources.machine_code import issue_slots, kernel_name, read_functions, read_resources
from benchmarks.toolkit import setup_facts

REPORT = report.load(backend="cuda")

#: Of another version of the compiler; a spill is never in order.
REGISTER_TOLERANCE, SLOTS_TOLERANCE = 32, 1.15


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    return cuda.Recorder(tmp_path_factory.mktemp("launches"))


def _unit(row) -> cuda.Unit:
    return cuda.Unit(row["device"], row["operator"], row["storage"])


def test_every_rule_holds_for_the_whole_report():
    assert cuda_rules.broken(REPORT.rows) == []


def test_every_file_of_kernels_is_in_the_report():
    assert {_unit(row) for row in REPORT.rows} == set(cuda.units(cuda.devices())), "run `make report`"


@pytest.mark.parametrize("device", cuda.devices())
def test_every_layer_of_the_family_launches_what_is_reported(recorder, device):
    launches = recorder.launches(device)
    reported = {row["kernel"]: row for row in REPORT.rows if row["device"] == device}
    layers: dict[str, int] = {}
    for launched in launches:
        layers[launched.kernel] = layers.get(launched.kernel, 0) + launched.layers
        row = reported[launched.kernel]
        least, most = row["shared_bytes"]
        assert least <= row["static_shared_bytes"] + launched.shared_bytes <= most, "run `make report`"
        assert launched.threads in row["threads"], "run `make report`"
    assert layers == {kernel: row["layers"] for kernel, row in reported.items() if row["layers"]}


def test_the_summary_is_the_report_s():
    assert (report.FOLDER / "cuda.md").read_text() == cuda_report.markdown(REPORT)


def test_one_storage_type_a_family_compiles_to_what_is_reported():
    """On sm_90 with float16 maps, where there is a compiler."""
    wanted = [
        unit
        for unit in cuda.units(["sm_90"])
        if unit.storage == "float16" or unit.operator == "squeeze_excite_gate"
    ]
    if setup_facts()["CUDA_ROOT"] is None:
        with pytest.raises(cuda.ToolkitError, match="cannot be compiled; missing: "):
            cuda.toolkit()
        return
    versions = cuda.versions()
    found = {(row["device"], row["kernel"]): row for row in cuda.compile_units(wanted, processes=2)}
    reported = {(row["device"], row["kernel"]): row for row in REPORT.rows if _unit(row) in wanted}
    assert set(found) == set(reported), "run `make report`"
    for at, row in found.items():
        if versions == REPORT.versions:
            assert row == reported[at], "run `make report`"
            continue
        assert not row["spilled_bytes"], at
        assert row["registers"] <= reported[at]["registers"] + REGISTER_TOLERANCE, at
        if row["loop"]:
            slots = reported[at]["loop"]["slots_per_output"]
            assert row["loop"]["slots_per_output"] <= slots * SLOTS_TOLERANCE, at


def test_what_is_kept_is_known_by_every_file_it_is_made_of(tmp_path):
    for operator, own in (("depthwise_conv", "depthwise_conv.cuh"), ("squeeze_excite_gate", "launcher.h")):
        source = cuda.Unit("sm_90", operator, "float16").source(tmp_path)
        assert {own, source.name, "ptx.cuh", "storage.cuh", "dtype.h"} <= set(cuda.with_includes(source))


def _row(kernel: str):
    return next(row for row in REPORT.rows if row["device"] == "sm_90" and kernel in row["kernel"])


DEPTHWISE = _row("DepthwiseConvTraits<half, 3, 1, true>")
POINTWISE = next(
    row for row in REPORT.rows if "pointwise_conv_kernel" in row["kernel"] and cuda_rules.is_silu(row)
)
SINGLE = _row("DepthwiseConvTraits<float, 3, 1, false>")


@pytest.mark.parametrize(
    ("row", "change", "sentence"),
    [
        (DEPTHWISE, {"spilled_bytes": 8}, "8 bytes of a thread spill"),
        (DEPTHWISE, {"shared_bytes": [0, 300000]}, "300000 bytes of shared memory, allowed: 232448"),
        (
            DEPTHWISE,
            {"occupancy": [0.0, 0.5]},
            "a block has more threads, registers or shared memory than a multiprocessor",
        ),
        (SINGLE, {"tf32": True}, "float32 values are multiplied as something else"),
        (SINGLE, {"matrix": {"HMMA": 4}}, "float32 values are multiplied as something else"),
        (
            _row("squeeze_kernel"),
            {"prefetched": 0},
            "no weights are loaded before the wait for the launch before",
        ),
        (POINTWISE, {"matrix": {}}, "no HMMA, but no matrix instruction"),
        (
            POINTWISE,
            {"mufu": {"MUFU.EX2": 3, "MUFU.TANH": 3}},
            "SiLU is MUFU.EX2, MUFU.TANH, expected MUFU.TANH",
        ),
        (POINTWISE, {"mufu": {"MUFU.RCP": 1}}, "SiLU is MUFU.RCP, expected MUFU.TANH"),
        (
            DEPTHWISE,
            {"loop": DEPTHWISE["loop"] | {"mufu": {"MUFU.TANH": 96}}},
            "SiLU of 48 outputs is {'MUFU.TANH': 96}, expected one MUFU.TANH for each",
        ),
        (
            DEPTHWISE,
            {"loop": DEPTHWISE["loop"] | {"ffma": 528}},
            "528 multiply-adds for 48 outputs, expected 480",
        ),
        (
            DEPTHWISE,
            {"loop": DEPTHWISE["loop"] | {"slots_per_output": 18.01}},
            "18.01 instructions for an output, allowed: 18",
        ),
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_found(row, change, sentence):
    assert cuda_rules.broken([row]) == []
    (found,) = cuda_rules.broken([row | change])
    assert found == f"{row['device']} {row['kernel']}: {sentence}"


CODE = """
		Function : _Z4loopv
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                  /* 0x00000a00ff017b82 */
                                                                            /* 0x000fe20000000800 */
        /*0010*/                   FFMA R2, R2, R3, R4 ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R6.64] ;
        /*0030*/             @!P0 BRA 0x20 ;
        /*0040*/                   FFMA R2, R2, R3, R4 ;
        /*0050*/                   MUFU.TANH R2, R2 ;
        /*0060*/                   STG.E.64 desc[UR4][R6.64], R2 ;
        /*0070*/              @P1 BRA 0x10 ;
        /*0080*/                   LDG.E.128 R4, desc[UR4][R6.64] ;
        /*0090*/             @!P0 BRA P1, 0x0                                     &req={1}    ?trans5;
        /*00a0*/                   EXIT ;
        /*00b0*/                   BRA 0xb0;
		Function : _Z5plainv
        /*0000*/                   EXIT ;
"""


def test_machine_code_is_read():
    functions = read_functions(CODE)
    code = functions["_Z4loopv"]
    assert [len(functions[name]) for name in ("_Z4loopv", "_Z5plainv")] == [12, 1]
    assert code.accesses("LDG", "LDGSTS") == (2, 2)
    assert code.accesses("STG") == (1, 0)
    assert code.before("MUFU").accesses("LDG", "LDGSTS") == (1, 1)
    assert len(code.before("ACQBULK")) == 0
    assert code.special == {"MUFU.TANH": 1}
    assert sorted(map(len, code.loops())) == [2, 7, 10]
    assert functions["_Z5plainv"].hot_loop() is None


def test_the_hot_loop_is_the_smallest_with_the_multiply_adds():
    loop = read_functions(CODE)["_Z4loopv"].hot_loop()
    assert [loop.instructions[0].address, loop.instructions[-1].address] == [0x10, 0x70]
    assert [len(inner) for inner in loop.copy_loops()] == [2]
    # Five of its own for two outputs, and two for each copy, of which an output needs a quarter.
    assert issue_slots(loop, outputs=2, copies=0.25) == 5 / 2 + 2 * 0.25


def test_resources_are_read():
    text = " Function _Z1av:\n  REG:40 STACK:8 SHARED:1024 LOCAL:16 CONSTANT[0]:744 TEXTURE:0\n"
    assert read_resources(text) == {"_Z1av": cuda.Resources(40, 24, 1024)}


def test_a_kernel_s_name_is_its_own_part():
    name = "void a::b::run_kernel<a::b::Traits<a::b::half, a::Tile<1, 2>, true> >(a::b::Args<a::b::half>)"
    assert kernel_name(name) == "run_kernel<Traits<half, Tile<1, 2>, true>>"
    assert kernel_name(f"(anonymous namespace)::Name<&({name})>") == kernel_name(name)


@pytest.mark.parametrize(
    ("device", "registers", "threads", "shared_bytes", "warps"),
    [
        ("sm_90", 32, 1024, 0, 64),
        ("sm_90", 33, 1024, 0, 32),  # 40 registers a thread: 48 warps, and a block has 32
        ("sm_90", 128, 128, 0, 16),
        ("sm_90", 32, 32, 0, 32),  # no more blocks
        ("sm_86", 32, 256, 0, 48),
        ("sm_86", 32, 256, 49 << 10, 16),
        ("sm_86", 32, 256, 100 << 10, 0),
    ],
)
def test_resident_warps(device, registers, threads, shared_bytes, warps):
    assert cuda.resident_warps(device, registers, threads, shared_bytes) == warps
