"""Times one revision's engine: `python revision_worker.py TREE THREADS DEVICE`, driven by JSON lines.

It runs by its path and knows nothing of this suite, only what the package of every revision has
(`create_model`, `InferenceEngine`), so that the same lines time both sides. A request on standard input is

    {"model", "batch", "image_size", "dtype", "weights", "images", "logits", "min_seconds"}

and is answered with {"ok": true, "seconds": [of each call]} or {"ok": false, "error": "one sentence"} after a
fork of its own has prepared the engine, stored the logits, and called it for `min_seconds`: every sample is a
new process, and what such a process is dealt once (addresses, say) becomes a part of the spread.
"""

import sys

sys.path[0] = sys.argv[
    1
]  # instead of the folder of this file, whose modules have names of the standard library

import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402

import torch  # noqa: E402

import effnet_fast  # noqa: E402

WARM_SECONDS = 0.1
BATCH_SECONDS, MOST_CALLS = 0.02, 1000


def measure(request: dict, threads: int, device: str) -> list[float]:
    torch.set_num_threads(threads)
    model = effnet_fast.create_model(request["model"]).eval().requires_grad_(False)
    model.load_state_dict(torch.load(request["weights"], weights_only=True))
    dtype = getattr(torch, request["dtype"])
    images = torch.load(request["images"], weights_only=True)
    images = images[torch.arange(request["batch"]) % len(images)].to(device, dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    engine = effnet_fast.InferenceEngine(
        model.to(device),
        batch_size=request["batch"],
        image_size=request["image_size"],
        dtype=dtype,
        input="float",
    )
    engine.warmup()
    torch.save(engine(images).cpu().clone(), request["logits"])
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def batch(calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            engine(images)
        wait()
        return time.perf_counter() - start

    def batches(calls: int, least: float) -> list[float]:
        seconds = [batch(calls)]
        while sum(seconds) < least:
            seconds.append(batch(calls))
        return seconds

    last = batches(1, WARM_SECONDS)[-1]
    # On a GPU a queue that is never empty, as benchmarks/devices.py has it; on a CPU call by call.
    calls = 1 if device == "cpu" else min(MOST_CALLS, max(1, math.ceil(BATCH_SECONDS / last)))
    return [seconds / calls for seconds in batches(calls, request["min_seconds"])]


def answer(line: str, threads: int, device: str) -> dict:
    try:
        return {"ok": True, "seconds": measure(json.loads(line), threads, device)}
    except Exception as error:  # whatever a revision raises is its result
        return {"ok": False, "error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}


def serve(threads: int, device: str) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # compilers write to standard output
    replies.write(json.dumps({"ok": True, "package": effnet_fast.__file__}) + "\n")
    while line := sys.stdin.readline():
        child = os.fork()  # nothing was computed here: no threads yet, and no CUDA, which survives no fork
        if child == 0:
            replies.write(json.dumps(answer(line, threads, device)) + "\n")
            replies.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"the measurement ended with {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    serve(int(sys.argv[2]), sys.argv[3])
