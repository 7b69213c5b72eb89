"""The page of `python -m benchmarks report`, read back without the code that made it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import commands, console
from benchmarks.commands import main
from benchmarks.report import command, drawing
from benchmarks.results import load
from tests.benchmarks import report_cases
from tests.benchmarks.report_cases import ROWS, Page, invoke, page_of, page_of_all, write

#: Columns that only a time or a peak of memory can say.
MEASURED = (
    "images_per_second", "stock_images_per_second", "median_ms", "p20_ms", "p80_ms", "activation_bytes",
    "activation_mib", "gmacs_per_second", "calls",
)  # fmt: skip


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    """The page of one file of each kind."""
    return page_of_all(tmp_path_factory.mktemp("all"))


def plot_text(path: Path) -> str:
    """What a plot says, its parts' titles included."""
    nodes = ElementTree.parse(path).iter()
    return "\n".join(
        node.text or "" for node in nodes if node.tag.split("}")[-1] in ("text", "tspan", "title")
    )


@pytest.mark.parametrize("kind", ROWS)
def test_every_row_of_every_kind_is_there_with_its_figures(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "can_draw", lambda: False)  # the tables need no plots
    page = page_of(write(tmp_path, kind), out=tmp_path / "page")
    headings, *lines = page.tables[-1]
    rows = ROWS[kind]
    assert len(lines) == len(rows)
    compared = 0
    for line, row in zip(lines, rows, strict=True):
        shown = dict(zip(headings, line, strict=True))
        timed = row.get("status", "ok") == "ok"
        for name, value in row.items():
            if isinstance(value, (int, float)) and name in shown and (timed or name not in MEASURED):
                assert float(shown[name].replace(",", "")) == pytest.approx(value, rel=1e-3), name
                compared += 1
    assert compared >= len(rows)
    assert f"python -m benchmarks {kind} --some option" in page.words
    assert "matplotlib is not installed" in page.words


def test_each_plot_has_panels_a_table_the_command_the_machine_and_the_gate(all_kinds):
    page = all_kinds
    articles = [part.split("</article>")[0] for part in page.text.split("<article>")[1:]]
    assert len(articles) >= 9
    for article in articles:
        assert article.count("<figure>") >= 1
        assert "<table>" in article
        assert "python -m benchmarks " in article
        for said in ("Some CPU", "avx2", "threads", "2.11.0", "0123456789", "2026-01-01", "Gate."):
            assert said in article


def test_the_tables_of_the_plots_hold_the_figures_of_the_files(all_kinds):
    page = all_kinds
    rows = {(row["case"], row["peer"]): row for row in ROWS["models"]}
    for line in page.table("eager NHWC", "effnet_fast", "vs runtime"):
        phi = int(line["model"][1])
        case = f"efficientnet_b{phi}/{224 + phi}/{line['batch']}/{line['dtype']}"
        for peer, (label, _, _) in report_cases.PEERS.items():
            row = rows[case, peer]
            shown = line[label].split(" ")[0]
            if row["status"] == "ok":
                assert float(shown) == pytest.approx(row["images_per_second"], rel=1e-3, abs=0.051)
            else:
                assert shown == row["status"]
        ours = rows[case, "engine"]["images_per_second"]
        fastest = rows[case, "some-new-peer"]["images_per_second"]
        assert line["vs runtime"] == f"{ours / fastest:.2f}x"

    operators = {row["layer"]: row for row in ROWS["operators"] if row["group"] == "ours"}
    lines = page.table("MAC/B", "of roof", "bound")
    assert {line["layer"] for line in lines} == set(operators)
    for line in lines:
        row = operators[line["layer"]]
        assert float(line["MAC/B"]) == pytest.approx(1e3 * row["gmacs"] / row["megabytes"], abs=0.006)
        if row["status"] == "ok":
            assert float(line["GMAC/s"]) == pytest.approx(row["gmacs_per_second"], rel=1e-3)
            assert float(line["vs stock"].rstrip("x")) == pytest.approx(3.0, abs=0.006)

    shares = [line["share"] for line in page.table("eager, measured, MiB", "share")]
    assert shares == ["25.0%", "25.0%"]  # of the last of three columns of that name


@pytest.mark.parametrize(
    "kind", [kind for kind, rows in ROWS.items() if any("status" in row for row in rows)]
)
def test_a_row_that_failed_shows_its_status_and_no_time(kind, tmp_path):
    """Even where the file has a time for it."""
    figure = 98765.4
    planted = dict.fromkeys(
        ("median_ms", "p20_ms", "p80_ms", "median_us", "images_per_second", "ratio"), figure
    )
    planted |= {"activation_bytes": int(figure) << 20, "gmacs_per_second": figure, "of_roof": figure}
    planted |= {"of_peak": figure, "stock_images_per_second": figure}
    rows = [dict(row) for row in ROWS[kind]]
    target = next(row for row in reversed(rows) if row["status"] == "ok")
    target.update(planted, status="FAIL", reason="error is 5 times what is allowed")
    page = page_of(write(tmp_path, kind, rows), out=tmp_path / "page")
    # What a reader of the page sees, and of each plot.
    seen = page.words
    for path in (tmp_path / "page" / "plots").glob("*.svg"):
        seen += plot_text(path)
    assert not re.search(r"9876|9\.877|1035\d{8}", seen.replace(",", ""))
    assert any(cell == "FAIL" for table in page.tables for line in table for cell in line)
    assert re.search(r"Without a time: .*\bFAIL", page.words)


def test_bars_are_over_the_best_of_pytorch_and_over_the_fastest_runtime(tmp_path):
    page_of(write(tmp_path, "models"), out=tmp_path / "page")
    (panel,) = (tmp_path / "page" / "plots").glob("*speed-up-float32-one.svg")
    said = plot_text(panel).split("\n")
    assert (said.count("2.50"), said.count("1.75")) == (3, 3)
    (panel,) = (tmp_path / "page" / "plots").glob("*speed-up-float32-several.svg")
    said = plot_text(panel).split("\n")
    assert (said.count("2.50"), said.count("4.00"), said.count("1.75")) == (2, 1, 3)  # one compiled failed


def test_reasons_and_targets_stand_below_the_plots(all_kinds):
    page = all_kinds
    assert "ONNX Runtime: unavailable: no bfloat16 here" in page.words
    assert "torch.compile, efficientnet_b1/225/16/float32: FAIL: error is 3 times" in page.words
    assert {line["host, us"] for line in page.table("p99", "host, us") if line["peer"] == "effnet_fast"} == {
        "12"
    }
    # 1.75 times the fastest other in every case but those of bfloat16, where it is the same peer.
    assert "1.75x in the geometric mean of 12 cases, from 1.75x to 1.75x; slower than it in 0" in page.words


def break_file(path, how):
    document = json.loads(path.read_text())
    if how == "edited":
        document["rows"][0]["images_per_second"] = 99.0
    elif how == "schema":
        document["schema"] = "effnet_fast.benchmarks/999"
    elif how == "environment":
        del document["environment"]["date"]
    path.write_text(path.read_text()[:200] if how == "half" else json.dumps(document))


@pytest.mark.parametrize(
    ("how", "words"),
    [("edited", "checksum"), ("half", "damaged"), ("schema", "999"), ("environment", "lacks date")],
)
def test_a_damaged_file_is_refused_and_the_page_stays(tmp_path, how, words):
    good, bad = write(tmp_path / "a", "memory"), write(tmp_path / "b", "models")
    page_of(good, out=tmp_path / "page")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "page").rglob("*")) if path.is_file()}
    break_file(bad, how)
    for files in ((good, bad), (tmp_path / "a", tmp_path / "b"), (bad,)):
        done = invoke(*files, "--out", tmp_path / "page")
        assert done.exit_code == 2
        assert words in done.output
        assert bad.name in done.output
        assert "Traceback" not in done.output
    after = {path: path.read_bytes() for path in sorted((tmp_path / "page").rglob("*")) if path.is_file()}
    assert after == before


def test_rows_that_lack_a_column_are_refused(tmp_path):
    rows = [dict(row) for row in ROWS["ladder"]]
    del rows[0]["median_us"]
    done = invoke(write(tmp_path, "ladder", rows), "--out", tmp_path / "page")
    assert done.exit_code == 2
    assert "lacks 'median_us'; measure it again: python -m benchmarks ladder" in done.output
    assert not (tmp_path / "page").exists()


def test_no_result_file_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for wrong, words in (
        (tmp_path / "empty", "no result file"),
        (tmp_path / "none.json", "no such result file"),
    ):
        done = invoke(wrong, "--out", tmp_path / "page")
        assert done.exit_code == 2
        assert words in done.output
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    done = invoke("--out", tmp_path / "page")
    assert done.exit_code == 2
    assert "no result files to make a page of" in done.output
    assert not (tmp_path / "page").exists()


def test_without_files_it_takes_the_committed_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(drawing, "can_draw", lambda: False)
    write(tmp_path / "some-device", "memory")
    write(tmp_path / "local", "models")
    page = page_of(out=tmp_path / "page")
    assert "some-device/memory.json" in page.words
    assert "models.json" not in page.words


def test_a_file_without_rows_says_so(tmp_path):
    page = page_of(write(tmp_path, "ladder", []), out=tmp_path / "page")
    assert "no rows" in page.words


@pytest.mark.parametrize("kind", ROWS)
def test_what_comes_from_a_file_is_text(kind, tmp_path):
    evil = '<script>alert("1")</script>&amp;$x_1$\'"'
    rows = []
    for row in ROWS[kind]:
        texts = {name: evil for name in ("label", "reason", "shape", "anything") if name in row}
        status = {} if row.get("status", "ok") == "ok" else {"reason": evil}
        rows.append(row | texts | status)
    path = write(tmp_path, kind, rows, command=f"python {evil}")
    page = page_of(path, out=tmp_path / "page")
    assert not [tag for tag, _, _ in page.tags if tag == "script"]
    assert f"python {evil}" in page.words
    assert sum(evil in cell for table in page.tables for line in table for cell in line) >= 1
    drawn = ""
    for picture in (tmp_path / "page" / "plots").glob("*.svg"):
        assert not [node for node in ElementTree.parse(picture).iter() if node.tag.endswith("script")]
        drawn += plot_text(picture)
    if kind == "ladder":  # whose labels stand in the plot
        assert drawn.count(evil) >= len(rows)


def test_points_of_a_roofline_name_their_layers(all_kinds):
    page = all_kinds
    titles = [data for inside, data in page.said if inside == "title"]
    assert any(data.startswith("effnet_fast cpu: layer.depthwise (8>8 @8x8): ") for data in titles)
    assert not any("effnet_fast cpu: layer.project" in data for data in titles)  # it failed


def test_operators_without_multiply_adds_still_have_their_times(tmp_path):
    """Files from before there were ceilings in them."""
    rows = [{k: v for k, v in row.items() if "gmacs" not in k} for row in ROWS["operators"]]
    page = page_of(write(tmp_path, "operators", rows), out=tmp_path / "page")
    assert "Roofline" not in page.words
    line = next(line for line in page.table("case", "speed-up") if "/expand/" in line["case"])
    assert line["speed-up"] == "3.00x"


def test_the_main_job_ends_with_the_page(tmp_path, monkeypatch):
    local, results = tmp_path / "local", tmp_path / "results"
    for module in (commands, console, command):
        monkeypatch.setattr(module, "LOCAL", local)
    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr(drawing, "can_draw", lambda: False)
    write(results / "some-device", "memory")
    monkeypatch.setattr(commands, "run_photos", lambda folder: write(local, "photos").exists())
    monkeypatch.setattr(commands, "run_default", lambda: write(local, "models").exists())
    monkeypatch.setattr(commands, "default_path", lambda: local / "models.json")
    write(local, "latency")  # of another day
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 0, done.output
    assert done.output.strip().endswith("index.html")
    words = Page(local / "report" / "index.html").words
    assert all(name in words for name in ("models.json", "photos.json", "some-device/memory.json"))
    assert "latency.json" not in words


def test_every_committed_result_file_can_be_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(drawing, "can_draw", lambda: False)
    page = page_of(out=tmp_path / "page")
    files = command.committed_files(console.RESULTS)
    assert files
    assert all(path.name in page.words and load(path).command in page.words for path in files)
