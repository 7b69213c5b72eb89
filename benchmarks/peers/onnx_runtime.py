"""ONNX Runtime on a CPU, with every optimisation of the graph that it has."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.peers.onnx_export import INPUT, OUTPUT, export_onnx, missing_packages
from benchmarks.peers.peer import Peer, PeerUnavailable, Prepared

DTYPES = (torch.float32, torch.bfloat16)


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    """Raises PeerUnavailable where ONNX Runtime lacks a kernel for `dtype`: it inserts no conversions to
    float32 then, and a time of float32 would not be one of `dtype`.
    """
    if dtype not in DTYPES:
        raise PeerUnavailable("ONNX Runtime takes part in float32 and bfloat16")
    import onnx
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    fold_batch_norms(model)  # here, in float32: the exporter would do it in `dtype`
    images = images.to(dtype)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory(prefix="effnet-fast-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model.to(dtype), images, path)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except NoKernel as error:
            lacks = str(error).split(" : ")[-1].split(" with name")[0]
            version = onnxruntime.__version__
            raise PeerUnavailable(f"ONNX Runtime {version} on a CPU, {dtype}: {lacks}") from error
    logits = torch.empty(session.get_outputs()[0].shape, dtype=dtype)
    element = onnx.TensorProto.FLOAT if dtype == torch.float32 else onnx.TensorProto.BFLOAT16
    # Both tensors where they lie: no copies, and bfloat16, which NumPy has not. `call` keeps them alive.
    bound = (images, logits)
    binding = session.io_binding()
    binding.bind_input(INPUT, "cpu", 0, element, list(images.shape), images.data_ptr())
    binding.bind_output(OUTPUT, "cpu", 0, element, list(logits.shape), logits.data_ptr())

    def call() -> torch.Tensor:
        session.run_with_iobinding(binding)
        return bound[1]

    details = {
        "onnxruntime": onnxruntime.__version__,
        "onnx": onnx.__version__,
        "threads": options.intra_op_num_threads,
    }
    return Prepared(call=call, own_bytes=None, details=details)


PEER = Peer(
    "onnxruntime",
    "ONNX Runtime",
    "runtime",
    prepare,
    {"provider": "CPUExecutionProvider", "graph_optimization": "all", "inter_op_threads": 1},
    devices=("cpu",),
    elsewhere="ONNX Runtime is compared on the CPU",
    missing=missing_packages("onnx", "onnxscript", "onnxruntime"),
)
