"""Every peer of a GPU in its worker process: checked, timed in both ways, with a memory figure."""

import pytest
import torch

from benchmarks.cases import Case
from benchmarks.peers import PEERS, parse_peers
from benchmarks.process import PeerProcess
from benchmarks.subject import Subject
from effnet_fast.measure import judge_logits

CASE = Case("efficientnet_b0", 64, 6, "float16", 0.0)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Subject:
    subject = Subject(tmp_path_factory.mktemp("subject"), seed=0)
    subject.load(CASE, ["float16"], ["float", "uint8"])
    return subject


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if PEERS[name].slow_start else ())
        for name in parse_peers("all", "cuda")
    ],
)
@pytest.mark.parametrize("each_call", [False, True], ids=["batches", "single calls"])
def test_a_peer_passes_the_gate_and_is_timed(subject, tmp_path, name, each_call):
    peer = PEERS[name]
    process = PeerProcess(name, threads=torch.get_num_threads(), folder=tmp_path, device="cuda")
    try:
        logits, details = process.prepare(
            CASE, subject.weights, subject.images[peer.images], memory=True, each_call=each_call
        )
        oracle = subject.oracles[peer.images]
        exact, stock = oracle.rows(CASE)
        verdict = judge_logits(logits, oracle=exact, stock=stock, dtype=CASE.torch_dtype, terms=oracle.terms)
        assert verdict.passed, verdict.reason
        compiled_graphs = name in ("compiled-autotune", "compiled-graphs")
        assert (details["activation_bytes"] is None) == compiled_graphs
        assert compiled_graphs or details["activation_bytes"] > 1 << 18
        seconds = process.sample(0.05)
        assert sum(seconds) >= 0.05
        assert max(seconds) < 1.0
    finally:
        process.close()
