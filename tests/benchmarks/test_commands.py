import json
from dataclasses import replace

import pytest
from click import ClickException
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from benchmarks import commands, plots, readme, tables
from benchmarks.cases import Case
from benchmarks.commands import main
from benchmarks.models_command import default_jobs, run_models
from benchmarks.progress import Reporter
from benchmarks.results import Results, load, save
from benchmarks.runner import Job, Runner, Settings
from effnet_fast.measure import describe

PEERS = ("eager-nchw", "eager-nhwc", "compiled", "engine")
SETTINGS = Settings(rounds=3, min_seconds=0.0, budget_seconds=40.0, threads=1)
JOBS = [
    Job(Case(f"efficientnet_b{phi}", 32, batch, dtype, 0.1, note), PEERS)
    for phi in (0, 1, 2)
    for batch, note in ((1, ""), (8, "batch 16 limited to 8" if phi == 2 else ""))
    for dtype in ("float32", "bfloat16")
]


def invoke(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def sweep(folder, fake_peers, jobs=JOBS, **options) -> bool:
    with (folder / "log").open("w") as file:
        return run_models(
            Console(file=file, width=200),
            folder / "models.json",
            jobs,
            SETTINGS,
            start_peer=fake_peers,
            **options,
        )


@pytest.fixture
def finished(fake_peers, tmp_path):
    """Result file of a whole sweep over fakes."""
    assert sweep(tmp_path, fake_peers)
    return tmp_path / "models.json"


def test_a_sweep_writes_json_csv_and_a_picture(finished):
    results = load(finished, kind="models")
    assert len(results.rows) == len(JOBS) * len(PEERS)
    assert len(finished.with_suffix(".csv").read_text().splitlines()) == 1 + len(results.rows)
    with Image.open(finished.with_suffix(".png")) as picture:
        assert picture.width > 800
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 10
    log = (finished.parent / "log").read_text()
    assert "4.00x" in log
    assert "efficientnet_b2: batch 16 limited to 8" in log
    assert "models.json" in log


def test_without_a_time_there_is_no_picture(finished, tmp_path):
    results = load(finished)
    for row in results.rows:
        row["status"] = "error"
    assert not plots.plot_models(results, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_stopped_sweep_is_resumed_without_repeating_cases(fake_peers, tmp_path):
    def stop(exact):
        if sum(len(peer.prepared) for peer in fake_peers.started if peer.name == "engine") > 5:
            raise KeyboardInterrupt
        return exact

    fake_peers.logits["engine"] = stop
    with pytest.raises(SystemExit) as status:
        sweep(tmp_path, fake_peers)
    assert status.value.code == 130
    assert len(load(tmp_path / "models.json").rows) == 5 * len(PEERS)
    assert "--resume" in (tmp_path / "log").read_text()

    fake_peers.logits.clear()
    fake_peers.started.clear()
    assert sweep(tmp_path, fake_peers, resume=True)
    prepared = [key for peer in fake_peers.started if peer.name == "engine" for key in peer.prepared]
    assert prepared == [job.case.key for job in JOBS[5:]]
    assert len(load(tmp_path / "models.json").rows) == len(JOBS) * len(PEERS)


def test_a_file_of_another_machine_or_commit_is_not_resumed(finished, fake_peers):
    results = load(finished)
    results.environment = dict(results.environment, commit="0123456789", threads=64)
    save(results, finished)
    before = finished.read_bytes()
    with pytest.raises(ClickException, match="cannot be resumed: threads: 64 there") as error:
        sweep(finished.parent, fake_peers, resume=True)
    assert error.value.exit_code == 2
    assert "commit" in str(error.value)
    assert finished.read_bytes() == before


def test_an_engine_that_fails_its_check_fails_the_command(fake_peers, tmp_path):
    fake_peers.logits["engine"] = lambda exact: exact + 1
    assert not sweep(tmp_path, fake_peers, JOBS[:1])


def test_a_damaged_file_is_not_overwritten(finished, fake_peers):
    document = json.loads(finished.read_text())
    document["rows"][0]["images_per_second"] *= 2
    finished.write_text(json.dumps(document))
    before = finished.read_bytes()
    done = invoke("models", "--phi", 0, "--out", finished.parent)
    assert done.exit_code == 2
    assert "checksum" in done.output
    assert "Traceback" not in done.output
    assert finished.read_bytes() == before
    for command in ("show", "readme"):
        done = invoke(command, finished)
        assert done.exit_code == 2
        assert "checksum" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--phi", "9"], "--phi: 9 is not allowed; allowed: 0 to 7"),
        (["--phi", "x"], "--phi: 'x' is not a list of numbers"),
        (["--model", "resnet50"], "resnet50"),
        (["--batch", "0"], "--batch: 0 is not allowed"),
        (["--dtype", "int8"], "'int8' is not known"),
        (["--peers", "tvm"], "'tvm' is not known; allowed: all, eager-nchw"),
        (["--phi", "0", "--model", "efficientnet_b0"], "exclude each other"),
        (["--rounds", "1"], "--rounds"),
        (["--device", "tpu"], "'tpu' is not one of"),
    ],
)
def test_wrong_options_are_usage_errors(arguments, words):
    done = invoke("models", *arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output


def test_by_default_the_compiled_peer_has_one_variant():
    jobs = default_jobs("cpu")
    assert {job.case.model for job in jobs if "compiled" in job.peers} == {"efficientnet_b0"}
    assert {job.case.model for job in jobs} == {f"efficientnet_b{phi}" for phi in range(3)}


def test_by_default_a_gpu_has_large_batches_16_bits_and_every_kind_of_graph():
    jobs = default_jobs("cuda")
    assert {job.case.batch for job in jobs} == {1, 32, 256}
    assert {job.case.dtype for job in jobs} == {"float16", "bfloat16"}
    assert {"graph-nhwc", "timm", "torchvision", "engine-uint8"} <= set(jobs[-1].peers)
    slow = {"compiled", "compiled-autotune", "compiled-graphs"}
    assert slow <= set(jobs[0].peers)
    assert not slow & set(jobs[-1].peers)
    assert "eager-tuned" not in jobs[0].peers  # glibc's allocator is no GPU's


def test_the_readme_table_comes_from_the_file(finished, tmp_path):
    target = tmp_path / "README.md"
    target.write_text(f"# Title\n\n{readme.BEGIN}\noutdated\n{readme.END}\n\nend\n")
    assert invoke("readme", finished, "--readme", target, "--check").exit_code == 1
    assert invoke("readme", finished, "--readme", target).exit_code == 0
    text = target.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\nend\n")
    assert "outdated" not in text
    assert "| B0 @32 | 1 | float32 | 2.5 | 5.0 | 10.0 | **20.0** | 4.00x | 2.00x | 1.00x |" in text
    assert "8*" in text
    assert describe()["cpu"] in text
    assert invoke("readme", finished, "--readme", target, "--check").exit_code == 0


def test_many_peers_become_one_column_a_group(finished, tmp_path):
    """A table of sixteen peers fits no terminal: each group is there with its fastest, by name."""
    results = load(finished)
    first = results.rows[:4]
    results.environment = dict(results.environment, device="cuda", gpu="Some GPU")
    slower = {"eager-folded": "eager", "timm": "eager", "graph-nchw": "graph", "compiled-graphs": "compiled"}
    for name, group in slower.items():
        results.rows += [
            {**row, "peer": name, "label": f"slow {name}", "group": group, "images_per_second": 0.1}
            for row in results.rows
            if row["peer"] == "engine"
        ]
    results.rows += [
        {**row, "peer": "graph-nhwc", "label": "quick graph", "group": "graph", "images_per_second": 32.0}
        for row in results.rows
        if row["peer"] == "engine"
    ]
    assert len(tables.labels_of(results.rows)) == 9
    shown = tables.shown_rows(results.rows)
    assert list(tables.labels_of(shown)) == ["eager", "graph", "compiled", "engine"]
    winners = {row["group"]: row["winner"] for row in shown if row["case"] == first[0]["case"]}
    assert winners == {
        "eager": "eager NHWC",
        "graph": "quick graph",
        "compiled": "torch.compile",
        "engine": "effnet_fast",
    }
    text = readme.markdown_table(results)
    # 20 images/s of the engine: over eager's 5, the graph's 32, the compiler's 10, and the best of them.
    assert "| B0 @32 | 1 | float32 | 5.0 | 32.0 | 10.0 | **20.0** | 4.00x | 0.62x | 2.00x | 0.62x |" in text
    assert "Some GPU" in text
    save(results, tmp_path / "models-cuda.json")
    done = invoke("show", tmp_path / "models-cuda.json")
    assert done.exit_code == 0, done.output
    assert "quick graph" in done.output
    assert (tmp_path / "models-cuda.png").exists()


@pytest.mark.parametrize("text", ["no markers", f"{readme.BEGIN}\n", f"{readme.END}\n{readme.BEGIN}\n"])
def test_a_readme_without_its_markers_is_left_alone(finished, tmp_path, text):
    target = tmp_path / "README.md"
    target.write_text(text)
    done = invoke("readme", finished, "--readme", target)
    assert done.exit_code == 2
    assert "needs exactly one line" in done.output
    assert target.read_text() == text


def test_one_committed_folder_is_found_and_two_are_not_guessed_between(tmp_path):
    for name in ("local", "cpu-a"):
        save(Results("models", {}, {}, ""), tmp_path / name / "models.json")
    assert [path.parent.name for path in readme.committed_results(tmp_path)] == ["cpu-a"]
    save(Results("models", {}, {}, ""), tmp_path / "cpu-b" / "models.json")
    with pytest.raises(readme.ResultError, match="found cpu-a, cpu-b; name the file"):
        readme.committed_results(tmp_path)
    # The list with the fairest peers is what the README quotes: of every machine, the longest first.
    suites = [tmp_path / name / "cpu.json" for name in ("cpu-b", "cpu-a", "cpu-c", "local")]
    for path, rows in zip(suites, (2, 1, 0, 3), strict=True):
        save(Results("models", {}, {}, "", [{}] * rows), path)
    assert readme.committed_results(tmp_path) == suites[:3]


def test_the_readme_has_the_table_of_every_committed_machine():
    files = readme.committed_results(commands.RESULTS)
    tables = [readme.markdown_table(load(path, kind="models")) for path in files]
    assert "\n\n".join(tables) in commands.README.read_text(encoding="utf-8")


def test_committed_result_files_are_whole():
    """Every result file in the repository loads, and names no machine."""
    for path in commands.RESULTS.glob("*/*.json"):
        if path.parent.name != "local":
            load(path)


def test_the_sweep_over_real_peers(tmp_path):
    """Two worker processes, from floats and from pixels, gate and timing for real, on the smallest case."""
    case = replace(JOBS[0].case, image_size=32)
    results = Results("models", describe(threads=1), SETTINGS.record(), "")
    console = Console(file=(tmp_path / "log").open("w"))
    with Runner(SETTINGS, Reporter(console)) as runner:
        runner.run(
            [Job(case, ("eager-nhwc", "engine-uint8"))],
            results,
            lambda: save(results, tmp_path / "models.json"),
        )
    statuses = {row["peer"]: row["status"] for row in load(tmp_path / "models.json").rows}
    assert statuses == {"eager-nhwc": "ok", "engine-uint8": "ok"}
    assert all(row["activation_mib"] > 0 for row in results.rows)
