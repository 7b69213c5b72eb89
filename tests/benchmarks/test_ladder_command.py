"""The table, the picture, the file and the command of `benchmarks ops --ladder`."""

import io
import platform
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from benchmarks import allocator, commands, contest, limits, readme
from benchmarks.block_calls import BlockCalls
from benchmarks.commands import main
from benchmarks.ladder_floor import floor
from benchmarks.ladder_tables import ladder_table, lines, markdown, notes, rungs_of
from benchmarks.results import ResultError, Results, load, save
from tests.benchmarks.ladder_cases import (
    B0,
    LADDER,
    LIMITS,
    WITHOUT_COMPILED,
    results_of,
    rows_of,
    small_case,
)


def test_a_rung_is_compared_with_the_one_before_that_has_a_time():
    rungs = rungs_of(list(reversed(rows_of(**LADDER))))  # whatever the order of the file
    assert [rung.row["peer"] for rung in rungs] == [
        "eager",
        "folded",
        "three-triton",
        "three-native",
        "whole",
    ]
    assert [rung.over_before for rung in rungs] == [None, 2.0, None, 2.0, 1.25]
    assert [rung.over_eager for rung in rungs] == [1.0, 2.0, None, 4.0, 5.0]
    assert [rung.over_eager for rung in rungs_of(rows_of(eager="FAIL", folded=2.0, whole=1.0))] == [None] * 3


def test_the_table_has_every_rung_and_the_floor():
    results = results_of(rows_of(**LADDER))
    table = lines(results)
    assert table[0][:5] == ["eager, batch norms", "400.0", "360.0 to 440.0", "-", "1.00x"]
    assert table[2][1] == "not on cpu"
    least = floor(small_case(), LIMITS)
    assert table[-1][0] == "floor: arithmetic"
    assert float(table[-1][1].replace(",", "")) == pytest.approx(least.us, rel=1e-3)
    assert table[-1][4] == f"{400 / least.us:.2f}x"
    console = Console(file=io.StringIO(), width=160)
    console.print(ladder_table(results))
    text = console.file.getvalue()
    assert "efficientnet_b0 stages.3.1: 80>480>80 k3 @14x14, batch 2, f32" in text
    assert "Some CPU (avx2), 2 threads" in text
    assert "whole block" in text
    said = notes(results)
    assert said[0].startswith("floor: the larger of ")
    assert "1.0 GB/s of a copy" in said[0]
    assert said[1] == "three kernels, Triton: unavailable: not on cpu: a reason"
    shown = markdown(results)
    assert "| whole block | 80.0 | 72.0 to 88.0 | 1.25x | 5.00x | 125 | " in shown
    assert "commit 0123456; `python -m benchmarks ops --ladder`." in shown


@pytest.fixture
def quick(monkeypatch):
    """The command on a small block, with limits that take no time."""
    monkeypatch.setattr(limits, "measure_limits", lambda device, dtype: LIMITS)


def invoke(*arguments: object):
    return CliRunner().invoke(main, ["ops", "--ladder", "--device", "cpu", *map(str, arguments)])


QUICK = ("--block", "stages.6.0", "--batch", 2, "--no-compiled", "--rounds", 3, "--min-seconds", 0)


def test_the_command_writes_shows_and_resumes(quick, tmp_path):
    done = invoke(*QUICK, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "not on cpu" in done.output
    path = tmp_path / f"ladder-{B0}-stages.6.0-2-float32.json"
    results = load(path, kind="ladder")
    assert [row["peer"] for row in results.rows] == list(WITHOUT_COMPILED)
    assert results.environment["limits"] == LIMITS.record()
    assert results.settings["allocator"] == "keeps freed memory"
    assert len(path.with_suffix(".csv").read_text().splitlines()) == 1 + len(WITHOUT_COMPILED)
    picture = path.with_suffix(".png")
    with Image.open(picture) as image:
        assert image.width > 800
        assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10
    picture.unlink()
    shown = CliRunner().invoke(main, ["show", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "expansion fused" in shown.output
    assert picture.exists()
    again = invoke(*QUICK, "--out", tmp_path, "--resume")
    assert again.exit_code == 0, again.output
    assert "1 of 1 cases are in" in again.output
    assert load(path).rows == results.rows


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator")
def test_freed_memory_is_kept():
    """In a process of its own: pages that the system had to find for the same tensor, again and again."""
    code = """
import resource, torch
from benchmarks.allocator import keep_freed_memory

def faults(calls):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(10), keep_freed_memory(), faults(10) and faults(10))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, kept, after = done.stdout.split()
    assert kept == "True"
    assert 100 * int(after) < int(before)


def test_an_allocator_that_cannot_be_told_is_named(monkeypatch):
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: False)
    assert allocator.settle_allocator() == "as it comes"


@pytest.mark.parametrize(("after", "kept"), [(20, True), (10, False)])
def test_an_interrupt_keeps_the_complete_rounds(quick, monkeypatch, tmp_path, after, kept):
    """Six rungs: the twentieth sample is in the fourth round of five."""
    samples = []

    class Counted:
        def __init__(self, call):
            self.call = call

        def sample(self, min_seconds):
            samples.append(self.call)
            if len(samples) == after:
                raise KeyboardInterrupt
            return [1e-3]

    monkeypatch.setattr(contest, "candidate", lambda call, device: Counted(call))
    options = list(QUICK)
    options[options.index("--rounds") + 1] = 5
    done = invoke(*options, "--out", tmp_path)
    assert done.exit_code == 130, done.output
    path = tmp_path / f"ladder-{B0}-stages.6.0-2-float32.json"
    assert path.exists() == kept
    if kept:
        times = [row for row in load(path).rows if row["status"] == "ok"]
        assert [row["rounds"] for row in times] == [3] * 6
        assert all(row["median_us"] == 500 for row in times)


def test_a_rung_of_ours_that_fails_fails_the_command(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(BlockCalls, "whole", lambda calls: lambda: calls._output.zero_())
    done = invoke(*QUICK, "--out", tmp_path)
    assert done.exit_code == 1
    assert "FAIL" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--block", "stages.9.0"],
            "has no MBConv block 'stages.9.0'; its MBConv blocks: stages.0.0, stages.1.0",
        ),
        (["--model", "resnet50"], "resnet50"),
        (
            ["--model", B0, "--model", "efficientnet_b4"],
            "--model is efficientnet_b0,efficientnet_b4; name one",
        ),
        (["--batch", "1,16"], "--batch is 1,16; name one"),
        (["--dtype", "int8"], "'int8' is not known"),
        (["--operator", "head_pool"], "--ladder and --operator exclude each other"),
        (["--limit-minutes", "0"], "--ladder and --limit-minutes exclude each other"),
    ],
)
def test_wrong_options_are_usage_errors(arguments, words):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize("option", [["--block", "stages.1.0"], ["--full"]])
def test_what_belongs_to_a_ladder_is_refused_without_one(option):
    done = CliRunner().invoke(main, ["ops", "--device", "cpu", *option])
    assert done.exit_code == 2
    assert "goes with --ladder" in done.output


def test_show_refuses_other_kinds(tmp_path):
    save(Results("photos", {}, {}, ""), tmp_path / "photos.json")
    done = CliRunner().invoke(main, ["show", str(tmp_path / "photos.json")])
    assert done.exit_code == 2
    assert "needed: models or ladder" in " ".join(done.output.split())


def test_the_tables_of_the_documents_come_from_committed_files(tmp_path, monkeypatch):
    results, target, kernels = tmp_path / "results", tmp_path / "README.md", tmp_path / "kernels.md"
    assert readme.committed_ladders(results) == readme.NO_LADDERS
    save(results_of(rows_of(**LADDER)), results / "cpu-a" / "ladder-x.json")
    save(results_of(rows_of(eager=1.0)), results / "local" / "ladder-y.json")
    tables = readme.committed_ladders(results)
    assert tables == markdown(results_of(rows_of(**LADDER)))

    monkeypatch.setattr(readme, "markdown_table", lambda found: "the models")
    monkeypatch.setattr(commands, "RESULTS", results)
    monkeypatch.setattr(commands, "KERNELS", kernels)
    save(Results("models", {}, {}, ""), results / "cpu-a" / "models.json")
    target.write_text(f"{readme.BEGIN}\n{readme.END}\n{readme.FUSE_BEGIN}\n{readme.FUSE_END}\n")
    kernels.write_text(f"before\n{readme.LADDERS_BEGIN}\nold\n{readme.LADDERS_END}\nafter\n")
    write = ["readme", "--readme", str(target)]
    assert CliRunner().invoke(main, [*write, "--check"]).exit_code == 1
    assert CliRunner().invoke(main, write).exit_code == 0
    assert kernels.read_text() == f"before\n{readme.LADDERS_BEGIN}\n{tables}\n{readme.LADDERS_END}\nafter\n"
    assert "the models" in target.read_text()
    assert CliRunner().invoke(main, [*write, "--check"]).exit_code == 0
    with pytest.raises(ResultError, match="docs/kernels.md needs exactly one line"):
        readme.update_ladders("no markers", tables)


def test_the_ladders_of_the_repository_are_in_its_documents():
    """docs/kernels.md says what the committed result files say."""
    text = commands.KERNELS.read_text(encoding="utf-8")
    assert readme.update_ladders(text, readme.committed_ladders(commands.RESULTS)) == text
