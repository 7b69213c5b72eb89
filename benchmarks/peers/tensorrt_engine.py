"""NVIDIA's TensorRT: by its own API from an ONNX file, and through Torch-TensorRT.

Written against the documented API of TensorRT 10.12 to 11 and of Torch-TensorRT 2.8. Neither was at hand: the
tests run this with stand-ins for them (tests/benchmarks/test_tensorrt_peers.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.peers.graph import captured
from benchmarks.peers.images import in_turn
from benchmarks.peers.onnx_export import INPUT, OUTPUT, export_onnx, missing_packages
from benchmarks.peers.peer import Peer, PeerUnavailable, Prepared

ELSEWHERE = "TensorRT needs a GPU"


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype, cuda: Any = torch.cuda) -> Prepared:
    """The network as a strongly typed TensorRT engine for exactly this shape, captured as a CUDA graph.

    Strongly typed: every tensor has the dtype that the file says, so that float32 is not TF32 or float16. In
    10.x that is asked for; 11 has nothing else. `cuda` is for tests.

    Raises: PeerUnavailable where the parser or the builder refuses the network, with what it says.
    """
    import tensorrt

    fold_batch_norms(model)
    images = images.to(dtype).contiguous()
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    with tempfile.TemporaryDirectory(prefix="effnet-fast-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model.to(dtype), images, path)
        if not parser.parse_from_file(str(path)):
            said = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise PeerUnavailable(f"TensorRT {tensorrt.__version__} cannot read the network: {said}")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # which is on by default, also for a strongly typed network
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PeerUnavailable(f"TensorRT {tensorrt.__version__} cannot build the network")
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    shape = tuple(engine.get_tensor_shape(OUTPUT))
    logits = torch.empty(shape, dtype=dtype, device=images.device)
    context.set_tensor_address(INPUT, images.data_ptr())
    context.set_tensor_address(OUTPUT, logits.data_ptr())
    bound = (images, logits, engine, context)  # the context keeps none of them alive: `call` does

    def call() -> torch.Tensor:
        if not bound[3].execute_async_v3(cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT did not run")
        return bound[1]

    replay, _ = captured(call, images.device, cuda)
    details = {"tensorrt": tensorrt.__version__, "mib": round(plan.nbytes / 2**20, 1)}
    return Prepared(call=replay, own_bytes=None, details=details)


def prepare_through_torch(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    """`torch_tensorrt.dynamo.compile` of the exported network, which must become one engine as a whole."""
    import torch_tensorrt

    fold_batch_norms(model)
    model, images = model.to(dtype), images.to(dtype).contiguous()
    compiled = torch_tensorrt.dynamo.compile(
        torch.export.export(model, (images,)),
        arg_inputs=[images],
        use_explicit_typing=True,  # the dtypes of the model, and no other
        disable_tf32=True,
        require_full_compilation=True,
        min_block_size=1,
    )

    given = in_turn(images)

    def call() -> torch.Tensor:
        with torch.no_grad():
            return compiled(given())

    return Prepared(call=call, own_bytes=None, details={"torch_tensorrt": torch_tensorrt.__version__})


SETTINGS = {"typing": "strong", "tf32": False, "batch_norm": "folded by torch.nn.utils.fusion"}

PEER = Peer(
    "tensorrt",
    "TensorRT",
    "runtime",
    prepare,
    {**SETTINGS, "from": "ONNX", "mode": "captured as a CUDA graph"},
    devices=("cuda",),
    elsewhere=ELSEWHERE,
    missing=missing_packages("tensorrt", "onnx", "onnxscript", hint="of NVIDIA, for this GPU"),
    slow_start=True,
)
THROUGH_TORCH = Peer(
    "torch-tensorrt",
    "Torch-TensorRT",
    "runtime",
    prepare_through_torch,
    {**SETTINGS, "from": "torch.export", "mode": "as it comes"},
    devices=("cuda",),
    elsewhere=ELSEWHERE,
    missing=missing_packages("torch_tensorrt", hint="of the version of this PyTorch"),
    slow_start=True,
)
