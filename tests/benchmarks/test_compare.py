"""`benchmarks compare`: result files against each other, and revisions of a repository measured in turn."""

from __future__ import annotations

import json
import random
import statistics
import subprocess

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from benchmarks import compare_command, revision_contest, revisions
from benchmarks.cases import Case
from benchmarks.commands import main
from benchmarks.compare import STEADIEST, compare_rows
from benchmarks.results import SCHEMA, ResultError, Results, load, save
from benchmarks.rows import new_row, time_columns
from effnet_fast.measure import SAME_RUN_FLOOR, describe, summarize

PEERS = ("eager-nhwc", "engine")


def invoke(*arguments: object):
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert "Traceback" not in done.output
    return done


def times(source: random.Random, seconds: float, scatter: float = 0.01, rounds: int = 7) -> dict:
    return time_columns(summarize([[seconds * (1 + source.gauss(0, scatter))] for _ in range(rounds)]), 1)


def rows(seed: int, *, engine: float = 0.01, slower: float = 1.0, cases: int = 6) -> list[dict]:
    """Rows of a sweep on a machine that is `slower` as a whole."""
    source = random.Random(seed)
    made = []
    for batch in range(1, cases + 1):
        for peer, seconds in zip(PEERS, (0.03, engine), strict=True):
            case = Case("efficientnet_b0", 224, batch, "float32", 0.4)
            made.append({**new_row(case, peer), "status": "ok", **times(source, batch * slower * seconds)})
    return made


def write(path, made, **environment):
    recorded = {**describe(threads=2), "commit": path.stem, **environment}
    save(Results("models", recorded, {"rounds": 7, "threads": 2}, "python -m benchmarks models", made), path)
    return path


def text(*arguments) -> str:
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_two_runs_of_one_revision_are_equal(tmp_path):
    files = write(tmp_path / "a.json", rows(1)), write(tmp_path / "b.json", rows(2))
    for options, count in (((), 6), (("--times",), 12)):
        shown = text(*files, *options)
        assert f"{count} compared: {count} =, B faster in 0, slower in 0" in shown
        assert "commit a," in shown
        assert "NOT MEASURED ALIKE" not in shown


def test_a_faster_engine_is_told_with_its_ratio_and_spread(tmp_path):
    first, second = write(tmp_path / "a.json", rows(1)), write(tmp_path / "b.json", rows(2, engine=0.008))
    assert "6 compared: 0 =, B faster in 6, slower in 0" in text(first, second)
    shown = text(first, second, "--times")
    assert "12 compared: 6 =, B faster in 6, slower in 0" in shown
    line = next(line for line in shown.splitlines() if "batch 1, f32" in line and "effnet_fast" in line)
    ratio = compare_rows(rows(1), rows(2, engine=0.008), floor=0.05).pairs[1].difference
    assert f"{ratio.ratio:.2f}x" in line
    assert f"{100 * ratio.spread:.1f}%" in line
    assert ratio.ratio == pytest.approx(1.25, abs=0.03)
    assert "slower in 6" in text(second, first)


def test_a_slow_hour_of_the_machine_goes_away_against_a_peer(tmp_path):
    first, second = write(tmp_path / "a.json", rows(1)), write(tmp_path / "b.json", rows(2, slower=1.3))
    assert "12 compared: 0 =, B faster in 0, slower in 12" in text(first, second, "--times")
    for options in ((), ("--against", "eager-nhwc")):
        shown = text(first, second, *options)
        assert "6 compared: 6 =, B faster in 0, slower in 0" in shown
        # The peer is a measure, its own rows are none.
        lines = [line.split() for line in shown.splitlines() if "effnet_fast" in line]
        assert len(lines) == 6
        assert all(3 * 0.97 < float(word.strip("x")) < 3 * 1.03 for line in lines for word in line[8:10])
    both = invoke(first, second, "--times", "--against", "eager-nhwc")
    assert both.exit_code == 2
    assert "--times and --against exclude each other" in both.output
    done = invoke(first, second, "--against", "compiled")
    assert done.exit_code == 2
    assert "'compiled' is not in both; the peers are eager-nhwc, engine" in done.output


def test_the_measure_of_a_case_is_the_steadiest_that_both_sides_have():
    source = random.Random(0)
    case = Case("efficientnet_b0", 224, 1, "float32", 0.4)

    def side(*without: str) -> list[dict]:
        scatters = {"eager-nchw": 0.2, "eager-nhwc": 0.02, "eager-folded": 0.001, "engine": 0.0001}
        return [
            {
                **new_row(case, peer),
                "status": "FAIL" if peer in without else "ok",
                **times(source, 0.01, scatter),
            }
            for peer, scatter in scatters.items()
        ]

    for without, chosen in (((), "eager-folded"), (("eager-folded",), "eager-nhwc")):
        (pair,) = compare_rows(side(), side(*without), floor=0.05, against=STEADIEST).pairs
        assert (pair.first["peer"], pair.measures[1]["peer"]) == ("engine", chosen)
    (pair,) = compare_rows(
        side("eager-nchw", "eager-nhwc", "eager-folded"), side(), floor=0.05, against=STEADIEST
    ).pairs
    assert pair.difference is None


def test_another_machine_is_said_loudly_and_rows_of_one_side_are_listed(tmp_path):
    first = write(tmp_path / "a.json", rows(1))
    other = rows(2, cases=7)
    other[3] = {**other[3], "status": "FAIL", "reason": "max error 2"}
    second = write(tmp_path / "b.json", other, cpu="Another CPU", threads=64)
    shown = text(first, second, "--times")
    assert "NOT MEASURED ALIKE" in shown
    assert "'Another CPU' here" in shown
    assert "threads: 2 there, 64 here" in shown
    assert "commit:" not in shown
    assert "only in B: efficientnet_b0 @224, batch 7, f32, eager NHWC" in shown
    assert "B: efficientnet_b0 @224, batch 2, f32, effnet_fast: FAIL: max error 2" in shown
    assert "11 compared" in shown


def test_unusable_files_exit_with_2(tmp_path):
    good = write(tmp_path / "a.json", rows(1))
    damaged = write(tmp_path / "b.json", rows(2))
    damaged.write_text(damaged.read_text().replace('"batch": 1,', '"batch": 3,', 1))
    newer = write(tmp_path / "c.json", rows(2))
    newer.write_text(newer.read_text().replace(SCHEMA, "effnet_fast.benchmarks/9"))
    other = tmp_path / "d.json"
    save(Results("memory", {}, {}, ""), other)
    apart = write(tmp_path / "e.json", [{**row, "case": "x"} for row in rows(2)])
    timeless = write(tmp_path / "f.json", [{"case": "x", "peer": "y", "status": "ok"}])
    for second, words in (
        (damaged, "rows do not match its checksum"),
        (newer, "effnet_fast.benchmarks/9"),
        (other, "holds results of kind 'memory'; needed: 'models'"),
        (apart, "have no case and peer in common"),
        (timeless, "no times of rounds"),
        (tmp_path / "none.json", "there is no such result file"),
        ("HEAD", "two files or two revisions"),
    ):
        done = invoke(good, second)
        assert done.exit_code == 2, done.output
        assert words in " ".join(done.output.split()).replace("│ ", "")
    done = invoke(good, good, "--batch", "1")
    assert done.exit_code == 2
    assert "--batch is for revisions" in done.output


def test_wrong_options_of_revisions_exit_with_2():
    for arguments, words in (
        (("no-such-revision", "HEAD"), "'no-such-revision' is neither a result file nor a revision"),
        (("HEAD", "HEAD", "--against", "engine"), "--against is for result files"),
        (("HEAD", "HEAD", "--model", "resnet50"), "resnet50"),
        (("HEAD", "HEAD", "--resolution", "8"), "--resolution: 8 is not allowed"),
        (("--upload-pack=x", "HEAD"), "No such option"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 2, done.output
        assert words in done.output


# A package whose engine is the stock model and takes `DELAY` seconds by its process's clock. Not by the
# machine's: on a busy one a sleep of 1 ms can take five, and then nothing is found, rightly.
PACKAGE = """
import time
import torch

DELAY = 0.001
TOUCHED = []
seconds = 0.0
time.perf_counter = lambda: seconds

def create_model(name):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))

class InferenceEngine:
    def __init__(self, model, *, batch_size, image_size, dtype, input):
        self.model = model.to(dtype)
    def warmup(self):
        print("what compilers write to standard output")
    def __call__(self, images):
        global seconds
        seconds += DELAY
        with torch.inference_mode():
            return self.model(images)
"""
SETUP = """
import os
assert os.environ["EFFNET_FAST_SKIP_CUDA"] == "1"
library = open("csrc/cpu/kernel.cpp").read()
assert "error" not in library, "kernel.cpp:1: error: nothing compiles this"
open("effnet_fast/_C_cpu.abi3.so", "w").write(library)
"""


def git(root, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a package of its own; `commit(**files)` adds a revision."""
    root = tmp_path / "repository"
    (root / "csrc" / "cpu").mkdir(parents=True)
    (root / "effnet_fast").mkdir()
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text("*.so\n")

    def commit(*, package: str = PACKAGE, kernel: str = "one", setup: str = SETUP) -> str:
        (root / "effnet_fast" / "__init__.py").write_text(package)
        (root / "csrc" / "cpu" / "kernel.cpp").write_text(kernel)
        (root / "setup.py").write_text(setup)
        git(root, "add", ".")
        git(root, "commit", "--quiet", "--allow-empty", "-m", "x")
        return git(root, "rev-parse", "HEAD")

    monkeypatch.setattr(revisions.resolve, "__defaults__", (root,))
    monkeypatch.setitem(revisions.checkouts.__wrapped__.__kwdefaults__, "root", root)
    return root, commit


def checked_out(root, *commits, device="cpu"):
    said = []
    with revisions.checkouts(commits, device=device, say=said.append, root=root) as trees:
        found = {
            commit: (tree / "effnet_fast" / "_C_cpu.abi3.so").read_text() for commit, tree in trees.items()
        }
        assert all(tree == root or (tree / "effnet_fast" / "__init__.py").exists() for tree in trees.values())
    assert git(root, "worktree", "list").count("\n") == 0  # itself alone
    return found, said


def test_libraries_are_built_where_their_sources_differ_and_shared_elsewhere(repository):
    root, commit = repository
    one = commit()
    two = commit(kernel="two")
    three = commit(kernel="two", package=PACKAGE + "# changed")
    # Nothing is built here: one build for each kernel, and the third revision has the second's.
    found, said = checked_out(root, one, two, three)
    assert found == {one: "one", two: "two", three: "two"}
    assert [text.split()[-1] for text in said] == [one[:10], two[:10]]
    # With a library that is newer than its sources, nothing of this kernel is built.
    (root / "effnet_fast" / "_C_cpu.abi3.so").write_text("two, from here")
    assert checked_out(root, two, three) == ({two: "two, from here", three: "two, from here"}, [])
    # What is changed here is not what was committed.
    (root / "csrc" / "cpu" / "kernel.cpp").write_text("changed")
    assert checked_out(root, two)[0] == {two: "two"}
    (root / "csrc" / "cpu" / "kernel.cpp").write_text("two")
    assert checked_out(root, two)[0] == {two: "two"}  # equal again, but the library is older
    (root / "effnet_fast" / "_C_cpu.abi3.so").write_text("two, from here")
    (root / "csrc" / "cpu" / "new.h").write_text("")
    assert checked_out(root, two)[0] == {two: "two"}  # a new source belongs to what is built here


def test_a_revision_that_does_not_build_is_refused_and_leaves_no_worktree(repository):
    root, commit = repository
    broken = commit(kernel="error")
    with (
        pytest.raises(revisions.RevisionError, match=f"{broken[:10]} cannot be built: .*nothing compiles"),
        revisions.checkouts([broken], device="cpu", say=lambda text: None, root=root),
    ):
        pass
    assert git(root, "worktree", "list").count("\n") == 0


class FakeSubject:
    """Weights and images of the package above."""

    def __init__(self, folder, seed):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
        self.weights, self.images = folder / "weights.pt", {"float": folder / "images.pt"}
        torch.save(model.state_dict(), self.weights)
        self._images = torch.randn(4, 3, 2, 2)
        torch.save(self._images, self.images["float"])
        self._model = model
        self.oracles = {"float": self}

    terms = 12

    def load(self, case, dtypes, kinds):
        pass

    def rows(self, case):
        images = self._images[torch.arange(case.batch) % 4]
        with torch.no_grad():
            return self._model.double()(images.double()), self._model.float()(images)


@pytest.fixture
def measured(repository, monkeypatch, tmp_path):
    """Two revisions compared for real, by processes, with the fake package: rows, what is printed, served."""
    _, commit = repository
    monkeypatch.setattr(revision_contest, "Subject", FakeSubject)
    cases = [Case("efficientnet_b0", 2, 2, "float32", 0.1)]
    monkeypatch.setattr(compare_command, "sweep", lambda *arguments: cases)

    def run(*packages: str, rounds: int = 3):
        names = [commit(package=package) for package in packages]
        with (tmp_path / "log").open("w") as file:
            served = compare_command.compare_revisions(
                Console(file=file, width=160), tuple(names), rounds=rounds, min_seconds=0.02, threads=1,
                out=tmp_path / "out", device="cpu",
            )  # fmt: skip
        found = load(tmp_path / "out" / "compare.json", kind="compare")
        return found, (tmp_path / "log").read_text(), served

    return run


def test_a_slower_revision_is_found_and_every_sample_is_a_process_of_its_own(measured):
    alone = PACKAGE.replace(
        "seconds += DELAY", "TOUCHED.append(1); assert len(TOUCHED) < 400; seconds += DELAY"
    )
    found, log, served = measured(alone, PACKAGE.replace("0.001", "0.004"))
    assert served
    assert [(row["peer"], row["status"], row["rounds"]) for row in found.rows] == [
        ("A", "ok", 3),
        ("B", "ok", 3),
    ]
    assert [row["median_ms"] for row in found.rows] == pytest.approx([1.0, 4.0])
    assert "0.25x" in log
    assert "1 compared: 0 =, B faster in 0, slower in 1" in log
    assert found.settings["A"] in log


def test_a_wrong_revision_has_FAIL_and_no_time(measured):
    found, log, served = measured(PACKAGE, PACKAGE.replace("self.model(images)", "self.model(images) + 1"))
    assert not served
    assert [row["status"] for row in found.rows] == ["ok", "FAIL"]
    assert "median_ms" not in found.rows[1]
    assert "B: efficientnet_b0 @2, batch 2, f32, effnet_fast: FAIL: max error" in log


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise RuntimeError('no such kernel')", "RuntimeError: no such kernel"),
        ("import os; os.kill(os.getpid(), 9)", "the measurement ended with -9"),
    ],
)
def test_a_revision_that_breaks_off_is_recorded_and_the_other_is_timed(measured, fault, words):
    found, log, served = measured(PACKAGE, PACKAGE.replace("seconds += DELAY", fault))
    assert not served
    assert [row["status"] for row in found.rows] == ["ok", "error"]
    assert found.rows[0]["median_ms"] == pytest.approx(1.0)
    assert words in found.rows[1]["reason"]
    assert words in " ".join(log.split())


def test_runs_of_one_revision_are_equal_in_rows_of_one_file():
    source = random.Random(3)
    case = Case("efficientnet_b0", 224, 1, "float32", 0.4)

    def side() -> list[dict]:
        return [{**new_row(case, "engine"), "status": "ok", **times(source, 0.01, 0.02, rounds=9)}]

    equal = [compare_rows(side(), side(), floor=SAME_RUN_FLOOR).pairs[0].difference.noise for _ in range(300)]
    assert statistics.mean(equal) > 0.98
    with pytest.raises(ResultError, match="no 'peer'"):
        compare_rows([{"case": "x"}], [], floor=0.0)


def test_the_package_of_another_place_is_no_revision(tmp_path, repository, monkeypatch):
    root, _ = repository
    worker = tmp_path / "worker.py"
    package = json.dumps(str(tmp_path / "elsewhere" / "__init__.py"))
    worker.write_text(f"""
import json, sys
print(json.dumps({{"ok": True, "package": {package}}}), flush=True)
sys.stdin.read()
""")
    monkeypatch.setattr(revisions, "WORKER", worker)
    with pytest.raises(revisions.PeerError, match="not from the revision's own tree"):
        revisions.RevisionProcess(root, threads=1, device="cpu", folder=tmp_path, name="A")
