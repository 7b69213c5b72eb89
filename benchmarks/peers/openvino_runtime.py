"""OpenVINO on a CPU: one image batch at a time on all threads, or halves of it on two streams."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peers.onnx_export import export_onnx, missing_packages
from benchmarks.peers.peer import Peer, PeerUnavailable, Prepared

#: OpenVINO's names of the precisions that it computes in on a CPU.
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}

STREAMS = 2


def _preparing(hint: str, streams: int) -> Callable[[nn.Module, torch.Tensor, torch.dtype], Prepared]:
    def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
        """Raises PeerUnavailable for a dtype in which OpenVINO would compute in another one, and for a batch
        or threads that do not divide into the streams.
        """
        batch, threads = images.shape[0], torch.get_num_threads()
        if dtype not in PRECISIONS:
            raise PeerUnavailable("OpenVINO on a CPU takes part in float32 and bfloat16")
        if batch % streams:
            raise PeerUnavailable(f"{streams} streams need a batch that divides into {streams}, not {batch}")
        if threads < streams:
            raise PeerUnavailable(f"{streams} streams need as many threads, not {threads}")
        # The file is in float32, and so are the images, already rounded: OpenVINO itself turns weights and
        # activations into the precision that it is told.
        parts = list(images.to(dtype).float().split(batch // streams))
        compiled, details = _compile(model, parts[0], dtype, hint, streams, threads)
        # Requests read the parts where they lie and do not keep them alive: `call` does.
        bound = [(_request(compiled, part), part) for part in parts]

        def call() -> torch.Tensor:
            for request, _ in bound:
                request.start_async()
            for request, _ in bound:
                request.wait()
            logits = [torch.from_numpy(request.get_output_tensor().data) for request, _ in bound]
            return logits[0] if streams == 1 else torch.cat(logits)

        return Prepared(call=call, own_bytes=None, details=details)

    return prepare


def _compile(
    model: nn.Module, images: torch.Tensor, dtype: torch.dtype, hint: str, streams: int, threads: int
) -> tuple[Any, dict[str, object]]:
    """(`model` compiled by OpenVINO for images of this shape, what OpenVINO says that it uses)."""
    import openvino

    core = openvino.Core()
    precision = PRECISIONS[dtype]
    if dtype == torch.bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PeerUnavailable("OpenVINO does not compute in bfloat16 on this CPU")
    wanted = {
        "PERFORMANCE_HINT": hint,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        # Or it takes half of the threads where two share a core; the other peers take all.
        "ENABLE_HYPER_THREADING": True,
    }
    with tempfile.TemporaryDirectory(prefix="effnet-fast-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, images, path)
        compiled = core.compile_model(str(path), "CPU", wanted)
    used = {name: compiled.get_property(name) for name in ("NUM_STREAMS", "INFERENCE_NUM_THREADS")}
    if used != {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads}:
        raise PeerUnavailable(f"OpenVINO was asked for {streams} streams and {threads} threads, has {used}")
    return compiled, {
        "openvino": openvino.__version__,
        "precision": precision,
        "streams": streams,
        "threads": threads,
        "pinned": bool(compiled.get_property("ENABLE_CPU_PINNING")),
    }


def _request(compiled: Any, images: torch.Tensor) -> Any:
    """A request of `compiled` that reads `images` [n, 3, H, W] float32, contiguous, where they lie."""
    import openvino

    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(images.numpy(), shared_memory=True))
    return request


def _peer(name: str, label: str, hint: str, streams: int) -> Peer:
    return Peer(
        name,
        label,
        "runtime",
        _preparing(hint, streams),
        {"performance_hint": hint, "streams": streams, "input": "float32, rounded to the dtype"},
        devices=("cpu",),
        elsewhere="OpenVINO is compared on the CPU",
        missing=missing_packages("onnx", "onnxscript", "openvino"),
    )


LATENCY = _peer("openvino-latency", "OpenVINO latency", "LATENCY", 1)
THROUGHPUT = _peer("openvino-throughput", "OpenVINO 2 streams", "THROUGHPUT", STREAMS)
