import io

import pytest
import torch
from rich.console import Console

from benchmarks import tables
from benchmarks.cases import Case
from benchmarks.process import PeerError
from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.runner import Job, Runner, Settings

PEERS = ("eager-nchw", "eager-nhwc", "compiled", "engine")
SETTINGS = Settings(rounds=3, min_seconds=0.0, threads=1)


def jobs(*batches: int) -> list[Job]:
    return [Job(Case("efficientnet_b0", 32, batch, "float32", 0.1), PEERS) for batch in batches or (2,)]


def run(fake_peers, todo, save=lambda: None) -> tuple[Results, str]:
    console = Console(file=io.StringIO(), width=160)
    results = Results("models", {"cpu": "x", "threads": 1}, {}, "")
    with Runner(SETTINGS, Reporter(console), start_peer=fake_peers) as runner:
        runner.run(todo, results, save)
    return results, console.file.getvalue()


def by_peer(results: Results) -> dict[str, dict]:
    return {row["peer"]: row for row in results.rows}


def table_text(results: Results) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(tables.models_table(results))
    return console.file.getvalue()


def test_each_peer_gets_its_rate_and_the_engine_its_ratios(fake_peers):
    results, log = run(fake_peers, jobs(2))
    rates = {row["peer"]: row["images_per_second"] for row in results.rows}
    assert rates == {"eager-nchw": 5.0, "eager-nhwc": 10.0, "compiled": 20.0, "engine": 40.0}
    assert tables.ratio(results.rows, "eager") == 4.0
    assert tables.ratio(results.rows, "compiled") == 2.0
    text = table_text(results)
    assert "4.00x" in text
    assert "2.00x" in text
    assert "[1/1] efficientnet_b0 32 px, batch 2, float32" in log
    assert "effnet_fast 40.0" in log
    assert all(row["activation_mib"] == 1.0 and row["rounds"] == 3 for row in results.rows)


def test_a_wrong_kernel_has_FAIL_and_no_time(fake_peers):
    fake_peers.logits["engine"] = lambda exact: exact.roll(1, dims=1)
    results, log = run(fake_peers, jobs(2))
    row = by_peer(results)["engine"]
    assert row["status"] == "FAIL"
    assert "images_per_second" not in row
    assert row["error_usage"] > 1
    engine = next(peer for peer in fake_peers.started if peer.name == "engine")
    assert engine.samples == 0
    assert "FAIL" in table_text(results)
    assert tables.ratio(results.rows, "eager") is None
    assert "effnet_fast FAIL" in log
    assert any("max error" in note for note in tables.notes(results))


@pytest.mark.parametrize("wrong", ["nan", "one row", "bias", "shape"])
def test_the_gate_sees_every_kind_of_fault(fake_peers, wrong):
    def spoil(exact):
        spoiled = exact.clone()
        if wrong == "nan":
            spoiled[0, 0] = float("nan")
        elif wrong == "one row":
            spoiled[-1] = spoiled[0]
        elif wrong == "bias":
            spoiled += 1e-3
        else:
            spoiled = spoiled[:1]
        return spoiled

    fake_peers.logits["engine"] = spoil
    assert by_peer(run(fake_peers, jobs(2))[0])["engine"]["status"] == "FAIL"


def test_an_error_within_twice_that_of_stock_is_timed(fake_peers):
    fake_peers.logits["engine"] = lambda exact: exact * (1 + 1.9e-6)
    assert by_peer(run(fake_peers, jobs(2))[0])["engine"]["status"] == "ok"


def test_a_peer_that_dies_is_recorded_and_the_others_are_timed(fake_peers):
    fake_peers.dies_at["compiled"] = 2
    results, _ = run(fake_peers, jobs(2))
    rows = by_peer(results)
    assert rows["compiled"]["status"] == "error"
    assert "SIGSEGV" in rows["compiled"]["reason"]
    assert "images_per_second" not in rows["compiled"]
    assert [rows[name]["rounds"] for name in ("eager-nchw", "eager-nhwc", "engine")] == [3, 3, 3]
    assert next(peer for peer in fake_peers.started if peer.name == "compiled").closed


def test_a_dead_peer_is_started_again_for_the_next_case(fake_peers):
    fake_peers.dies_at["engine"] = 2
    run(fake_peers, jobs(1, 2))
    assert [peer.name for peer in fake_peers.started].count("engine") == 2
    assert all(peer.closed for peer in fake_peers.started)


def test_results_are_saved_after_every_case_and_an_interrupt_keeps_them(fake_peers):
    saved = []
    results = Results("models", {}, {}, "")

    def stop(exact: torch.Tensor) -> torch.Tensor:
        if len(exact) == 3:
            raise KeyboardInterrupt
        return exact

    fake_peers.logits["engine"] = stop
    with (
        pytest.raises(KeyboardInterrupt),
        Runner(SETTINGS, Reporter(Console(file=io.StringIO())), start_peer=fake_peers) as runner,
    ):
        runner.run(jobs(1, 2, 3, 4), results, lambda: saved.append(len(results.rows)))
    assert saved == [4, 8]
    assert {row["batch"] for row in results.rows} == {1, 2}
    assert all(peer.closed for peer in fake_peers.started)


def test_no_case_is_begun_after_the_deadline(fake_peers):
    results = Results("models", {}, {}, "")
    with Runner(SETTINGS, Reporter(Console(file=io.StringIO())), start_peer=fake_peers) as runner:
        assert runner.run(jobs(1, 2, 3), results, lambda: None, deadline_seconds=-1.0) == 3
        assert results.rows == []
        assert runner.run(jobs(1, 2, 3), results, lambda: None, deadline_seconds=60.0) == 0
    assert len(results.rows) == 12


def test_a_terminal_gets_a_live_line(fake_peers):
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    results = Results("models", {}, {}, "")
    with Runner(SETTINGS, Reporter(console), start_peer=fake_peers) as runner:
        runner.run(jobs(1), results, lambda: None)
    assert "effnet_fast 20.0" in console.file.getvalue()


def test_a_peer_without_memory_beside_the_others_is_measured_alone(fake_peers):
    fake_peers.room["compiled"] = lambda others: others == 0
    results, _ = run(fake_peers, jobs(2))
    rows = by_peer(results)
    assert (rows["compiled"]["status"], rows["compiled"]["alone"]) == ("ok", True)
    assert rows["compiled"]["images_per_second"] == 20.0
    assert not any("alone" in row for name, row in rows.items() if name != "compiled")
    assert any("measured alone" in note for note in tables.notes(results))


def test_a_peer_that_never_fits_is_out_of_memory_and_the_sweep_goes_on(fake_peers):
    fake_peers.room["eager-nchw"] = lambda others: False
    results, _ = run(fake_peers, jobs(2, 4))
    rows = [row for row in results.rows if row["peer"] == "eager-nchw"]
    assert [row["status"] for row in rows] == ["out of memory"] * 2
    assert not any("images_per_second" in row for row in rows)
    assert "OutOfMemoryError: 1 GiB" in rows[0]["reason"]
    assert "out of" in table_text(results)
    assert all(row["status"] == "ok" for row in results.rows if row["peer"] != "eager-nchw")


def test_a_peer_that_runs_out_of_memory_while_it_is_timed_is_measured_alone(fake_peers):
    fake_peers.dies_at["compiled"] = 2
    fake_peers.error = PeerError("OutOfMemoryError: 2 GiB", out_of_memory=True)
    results, _ = run(fake_peers, jobs(2))
    row = by_peer(results)["compiled"]
    assert (row["status"], row["alone"]) == ("out of memory", True)  # it dies again at its second sample
    assert [peer.name for peer in fake_peers.started].count("compiled") == 2
    assert by_peer(results)["engine"]["rounds"] == 3


def test_a_peer_of_another_device_is_never_started(fake_peers):
    todo = [Job(jobs(2)[0].case, ("eager-nhwc", "graph-nhwc", "engine"))]
    results, _ = run(fake_peers, todo)
    row = by_peer(results)["graph-nhwc"]
    assert (row["status"], row["reason"]) == ("unavailable", "CUDA graphs need a GPU")
    assert "unavailable" in table_text(results)
    assert "graph-nhwc" not in [peer.name for peer in fake_peers.started]


def test_pixels_are_given_to_the_peer_that_takes_them_and_compared_with_floats(fake_peers):
    todo = [Job(jobs(2)[0].case, ("eager-nhwc", "engine-uint8", "engine"))]
    results, _ = run(fake_peers, todo)
    images = {peer.name: peer.images[0].name for peer in fake_peers.started}
    assert images["engine-uint8"] != images["engine"] == images["eager-nhwc"]
    assert tables.ratio(results.rows, "engine", "engine-uint8") == pytest.approx(0.05 / 0.04)
    assert tables.ratio(results.rows, "eager") == 4.0  # of the engine from floats
    assert "1.25x" in table_text(results)


@pytest.mark.parametrize("name", ["engine", "engine-uint8"])
def test_either_input_of_the_engine_that_is_wrong_is_ours_to_answer_for(fake_peers, name):
    fake_peers.logits[name] = lambda exact: exact + 1
    results, _ = run(fake_peers, [Job(jobs(2)[0].case, ("eager-nhwc", "engine-uint8", "engine"))])
    assert [row["status"] for row in results.rows if tables.is_ours(row)].count("FAIL") == 1
