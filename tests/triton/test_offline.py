"""The committed report of what the kernels take: complete, within the rules, and true of today's sources."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.resources import keys, report, rules
from effnet_fast.triton_kernels import OPERATORS
from tests.triton.compiling import compile_records

REPORT = report.load()
LIMITS = {name: device.shared_bytes for name, device in keys.devices().items()}
FACTS = (
    "registers", "spilled_bytes", "shared_bytes", "instructions", "matrix", "tf32", "loads", "wide_loads",
    "stores", "wide_stores", "ffma", "mufu",
)  # fmt: skip
#: Registers that another version of the compiler may take more; a spill is never in order.
REGISTER_TOLERANCE = 32


def _key(row) -> tuple:
    return row["device"], row["operator"], rules.title(row)


def test_every_rule_holds_for_the_whole_report():
    assert rules.broken(REPORT.rows, LIMITS) == []


def test_every_layer_of_the_family_is_in_the_report():
    wanted = {(item.device, item.operator, str(item.key)): item for item in keys.wanted(list(LIMITS))}
    reported = {_key(row): row for row in REPORT.rows}
    assert set(wanted) == set(reported), "run `make report`"
    for at, item in wanted.items():
        assert (list(item.storages), item.layers) == (reported[at]["storages"], reported[at]["layers"])


def test_the_summary_is_the_report_s():
    assert (report.FOLDER / "triton.md").read_text() == report.markdown(REPORT)


def test_one_kernel_a_family_compiles_to_what_is_reported():
    chosen = {}
    for row in REPORT.rows:
        if row["device"] in ("sm_80", "sm_90"):
            # The compilation that most layers share.
            at = row["device"], row["kernel"]
            chosen[at] = max(row, chosen.get(at, row), key=lambda row: row["layers"])
    assert {row["operator"] for row in chosen.values()} == _operators_of_the_family()
    rows = list(chosen.values())
    found = compile_records([(row["device"], row) for row in rows])
    for row, answer in zip(rows, found["answers"], strict=True):
        if found["versions"] == REPORT.versions:
            assert {name: answer[name] for name in FACTS} == {name: row[name] for name in FACTS}, _key(row)
        else:
            assert not rules.broken([row | answer], LIMITS), _key(row)
            assert answer["registers"] <= row["registers"] + REGISTER_TOLERANCE, _key(row)


def _operators_of_the_family() -> set[str]:
    operators = {call.operator for call, _ in keys.family_calls("float16")}
    # Every layer of B0..B7 has squeeze-excite, and none convolves densely behind the stem.
    assert operators == set(OPERATORS) - {"dense_conv", "depthwise_conv"}
    return operators


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spilled_bytes": 8}, "8 bytes of a thread spill"),
        ({"shared_bytes": LIMITS["sm_90"] + 1}, "bytes of shared memory, allowed: 232448"),
        ({"tf32": True}, "float32 values are rounded to TF32"),
        ({"matrix": {"HMMA": 8}}, "no HGMMA, but HMMA"),
        ({"matrix": {}}, "no HGMMA, but no matrix instruction"),
    ],
)
def test_a_row_that_breaks_a_rule_is_found(change, sentence):
    row = next(row for row in REPORT.rows if "HGMMA" in row["matrix"])
    assert rules.broken([row], LIMITS) == []
    (found,) = rules.broken([row | change], LIMITS)
    assert found.endswith(sentence)


def test_too_many_compilations_are_found():
    row = next(row for row in REPORT.rows if row["storages"] == ["float16"])
    (found,) = rules.broken([row] * (rules.MOST_KEYS + 1), LIMITS)
    assert found == f"{row['device']}: B0..B7 in float16 need 51 compilations, allowed: 50"


@pytest.mark.parametrize(
    ("device", "rows", "warps", "instruction"),
    [
        ("sm_80", 128, 8, "HMMA"),
        ("sm_90", 64, 4, "HGMMA"),
        ("sm_90", 32, 4, "HMMA"),
        ("sm_90", 64, 2, "HMMA"),
        ("sm_100", 64, 4, "UTCHMMA"),
        ("sm_100", 32, 4, "HMMA"),
        ("sm_120", 128, 8, "HMMA"),
        ("gfx942", 128, 8, "MFMA"),
    ],
)
def test_which_matrix_instruction_is_demanded(device, rows, warps, instruction):
    row = {
        "device": device, "operator": "pointwise_conv", "arguments": {"x_ptr": "*fp16"},
        "constants": {"ROWS": rows}, "warps": warps,
    }  # fmt: skip
    assert rules.matrix_instruction(row) == instruction
    assert rules.matrix_instruction(row | {"arguments": {"x_ptr": "*fp32"}}) is None


def test_a_process_that_interprets_refuses_to_compile():
    for command in (
        ["-c", "from effnet_fast.triton_kernels import offline; offline.compile_key(None, None)"],
        ["-m", "benchmarks", "resources"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "interpreting and compiling do not mix" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "there is no such report"), ("{", "damaged report"), ("[]", "not a report of schema")],
)
def test_a_report_that_cannot_be_read_is_named(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "triton.json").write_text(text)
    with pytest.raises(report.ReportError, match=rf"triton\.json: {reason}"):
        report.load(tmp_path)


def test_a_report_is_read_as_it_was_written(tmp_path):
    report.save(REPORT, tmp_path)
    assert report.load(tmp_path) == REPORT
