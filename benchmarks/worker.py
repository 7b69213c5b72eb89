"""The process that one peer runs in: `python -m benchmarks.worker PEER THREADS`, driven by JSON lines.

Requests on standard input, replies on standard output, one line each:

    {"do": "prepare", "model": ..., "weights": path, "images": path, "batch": n, "dtype": ..., "logits": path,
    "memory": bool} {"do": "sample", "min_seconds": ...} {"do": "release"}

A reply is {"ok": true, ...} or {"ok": false, "error": "one sentence"}. End of input ends the process.
Whatever else writes to standard output (compilers do) is sent to standard error, which the parent keeps for
its error messages.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

import torch

import effnet_fast
from benchmarks.cases import DTYPES
from benchmarks.peers import PEERS, Peer, Prepared
from benchmarks.subject import rows_of_batch
from effnet_fast.measure import LocalCandidate, peak_allocated_bytes


class Session:
    """State between requests: the prepared peer and its stopwatch."""

    def __init__(self, peer: Peer):
        self.peer = peer
        self.prepared: Prepared | None = None
        self.candidate: LocalCandidate | None = None

    def prepare(self, request: dict) -> dict:
        model = effnet_fast.create_model(request["model"]).eval().requires_grad_(False)
        model.load_state_dict(torch.load(request["weights"], weights_only=True))
        images = torch.load(request["images"], weights_only=True)[rows_of_batch(request["batch"])]
        start = time.perf_counter()
        self.prepared = self.peer.prepare(model, images, DTYPES[request["dtype"]])
        logits = self.prepared.call()
        seconds = time.perf_counter() - start
        torch.save(logits.detach().cpu().clone(), request["logits"])
        memory = None
        if request["memory"]:
            memory = peak_allocated_bytes(self.prepared.call) + self.prepared.own_bytes
        self.candidate = LocalCandidate(self.prepared.call)
        return {"prepare_seconds": seconds, "activation_bytes": memory, "details": self.prepared.details}

    def sample(self, request: dict) -> dict:
        if self.candidate is None:
            raise RuntimeError("sample: nothing is prepared")
        return {"seconds": self.candidate.sample(request["min_seconds"])}

    def release(self, request: dict) -> dict:
        self.prepared = self.candidate = None
        torch.compiler.reset()
        gc.collect()
        return {}


def main(arguments: list[str]) -> None:
    """Serve requests until end of input. `arguments`: name of the peer, number of threads."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(int(arguments[1]))
    session = Session(PEERS[arguments[0]])
    actions = {"prepare": session.prepare, "sample": session.sample, "release": session.release}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"ok": True, **actions[request["do"]](request)}
        except (
            Exception
        ) as error:  # whatever a peer raises is its result for this case, not the end of the run
            sentence = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            reply = {"ok": False, "error": sentence}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
