"""The process that one peer runs in: `python -m benchmarks.worker PEER THREADS DEVICE`, driven by JSON lines.

Requests on standard input, replies on standard output, one line each. A case is

    {"do": "prepare", "model": name, "weights": path, "images": path, "batch": n, "dtype": name,
     "logits": path, "memory": bool, "each_call": bool}
    {"do": "sample", "min_seconds": seconds}     any number of times
    {"do": "release"}

A reply is {"ok": true, ...} or {"ok": false, "error": "one sentence", "out_of_memory": bool,
"unavailable": bool}. The end of input ends the process.
Whatever else writes to standard output (compilers do) is sent to standard error, which the parent keeps for
its error messages.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import torch

import effnet_fast
from benchmarks.cases import DTYPES
from benchmarks.devices import candidate, configure, give_memory_back, is_out_of_memory
from benchmarks.peers import PEERS, Peer, PeerUnavailable, Prepared
from benchmarks.subject import rows_of_batch
from effnet_fast.measure import Candidate, peak_allocated_bytes


class CaseState:
    """State between the requests of a case: the prepared peer and its stopwatch."""

    def __init__(self, peer: Peer, device: str):
        self.peer = peer
        self.device = device
        self.prepared: Prepared | None = None
        self.candidate: Candidate | None = None

    def prepare(self, request: dict) -> dict:
        model = effnet_fast.create_model(request["model"]).eval().requires_grad_(False)
        model.load_state_dict(torch.load(request["weights"], weights_only=True))
        model.to(self.device)
        images = torch.load(request["images"], weights_only=True).to(self.device)
        images = images[rows_of_batch(request["batch"]).to(self.device)]
        start = time.perf_counter()
        self.prepared = self.peer.prepare(model, images, DTYPES[request["dtype"]])
        logits = self.prepared.call().detach().cpu().clone()  # which waits for a GPU
        seconds = time.perf_counter() - start
        torch.save(logits, request["logits"])
        memory = None
        if request["memory"] and self.prepared.own_bytes is not None:
            memory = peak_allocated_bytes(self.prepared.call, self.device) + self.prepared.own_bytes
        self.candidate = candidate(self.prepared.call, self.device, each_call=request["each_call"])
        del model, images
        give_memory_back(self.device)
        return {"prepare_seconds": seconds, "activation_bytes": memory, "details": self.prepared.details}

    def sample(self, request: dict) -> dict:
        if self.candidate is None:
            raise RuntimeError("sample: nothing is prepared")
        seconds = self.candidate.sample(request["min_seconds"])
        give_memory_back(self.device)
        return {"seconds": list(seconds)}


class Service:
    """Reads requests and answers them. The process itself only imports; each case runs in a fork of it.

    So every case starts with the same empty heap (how glibc serves large blocks depends on those that were
    freed before), and nothing of one case is left in the next. Forking is safe as long as this process has
    computed nothing: there are no threads yet, and CUDA, which does not survive a fork, is not initialised.
    """

    def __init__(self, peer: Peer, threads: int, device: str):
        self.peer = peer
        self.threads = threads
        self.device = device
        self.replies = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def run(self) -> None:
        """Until the end of input."""
        while line := sys.stdin.readline():
            request = json.loads(line)
            if request["do"] != "prepare":
                error = f"RuntimeError: {request['do']}: nothing is prepared"
                self.reply({"ok": False, "error": error})
                continue
            child = os.fork()
            if child == 0:
                self.run_case(request)
                os._exit(0)  # without the parent's clean-up
            _, status = os.waitpid(child, 0)
            if status != 0:  # whether a reply is owed is not known here, so end: the parent sees that
                sys.exit(f"the peer ended with {describe_exit(status)}")

    def run_case(self, request: dict) -> None:
        """Answer `request`, a "prepare", and what follows until a "release" or the end of input."""
        torch.set_num_threads(self.threads)
        configure(self.device)
        state = CaseState(self.peer, self.device)
        actions = {"prepare": state.prepare, "sample": state.sample, "release": lambda request: {}}
        while True:
            try:
                reply = {"ok": True, **actions[request["do"]](request)}
            except Exception as error:  # whatever a peer raises is its result for this case
                reply = failure(error)
            self.reply(reply)
            if request["do"] == "release":
                return
            line = sys.stdin.readline()
            if not line:
                return
            request = json.loads(line)

    def reply(self, answer: dict) -> None:
        self.replies.write(json.dumps(answer) + "\n")


def failure(error: Exception) -> dict:
    """The reply that tells of `error`."""
    unavailable = isinstance(error, PeerUnavailable)
    sentence = str(error) if unavailable else f"{type(error).__name__}: {error}"
    return {
        "ok": False,
        "error": sentence.strip().splitlines()[0],
        "out_of_memory": is_out_of_memory(error),
        "unavailable": unavailable,
    }


def describe_exit(status: int) -> str:
    """ "SIGSEGV" or "status 3" from what `os.waitpid` gives."""
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"status {code}"


if __name__ == "__main__":
    Service(PEERS[sys.argv[1]], int(sys.argv[2]), sys.argv[3]).run()
