"""The peers: every way of running the same network that the benchmarks compare, one small file each."""

from __future__ import annotations

from benchmarks.peers import (
    compiled,
    cudnn_settings,
    eager_channels_last,
    eager_folded,
    eager_nchw,
    eager_tuned,
    engine,
    jax_xla,
    libraries,
    onnx_runtime,
    openvino_runtime,
    tensorrt_engine,
)
from benchmarks.peers.graph import graph_peer
from benchmarks.peers.peer import Peer, PeerUnavailable, Prepared

#: In the order of the table's columns: from what everybody has to what this project adds.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        eager_nchw.PEER,
        eager_channels_last.PEER,
        eager_folded.PEER,
        cudnn_settings.HEURISTICS,
        cudnn_settings.NATIVE,
        libraries.TIMM,
        libraries.TORCHVISION,
        eager_tuned.PEER,
        graph_peer(eager_nchw.PEER, name="graph-nchw", label="graph NCHW"),
        graph_peer(eager_channels_last.PEER, name="graph-nhwc", label="graph NHWC"),
        graph_peer(eager_folded.PEER, name="graph-folded", label="graph folded"),
        graph_peer(cudnn_settings.NATIVE, name="graph-native", label="graph native depthwise"),
        graph_peer(libraries.TIMM, name="graph-timm", label="graph timm"),
        graph_peer(libraries.TORCHVISION, name="graph-torchvision", label="graph torchvision"),
        compiled.DEFAULT,
        compiled.PLAIN,
        compiled.PEER,
        compiled.AUTOTUNE,
        compiled.GRAPHS,
        onnx_runtime.PEER,
        openvino_runtime.LATENCY,
        openvino_runtime.THROUGHPUT,
        tensorrt_engine.PEER,
        tensorrt_engine.THROUGH_TORCH,
        jax_xla.PEER,
        engine.UINT8,
        engine.PEER,
    )
}

#: Left out of a device's sweep unless they are asked for: on a CPU the libraries run the operators of the
#: stock peers (tests/benchmarks/test_peers.py), and no launches stand between them; a compiler that returns
#: its memory, or leaves the weights in the graph as arguments, is never the fastest, and takes long to start.
ASKED_FOR = {
    "cpu": ("timm", "torchvision", "compiled-default", "compiled-plain", "jax"),
    "cuda": ("compiled-default",),
}

#: Left out of the quick sweep besides: uint8 input is compared with float input by `--full`, the runtimes are
#: packages that nobody has by default, and of cuDNN's settings its search is the best in nearly every case.
NOT_QUICK = {
    "cpu": ("onnxruntime", "openvino-latency", "openvino-throughput", "engine-uint8"),
    "cuda": ("eager-heuristics", "eager-native", "tensorrt", "torch-tensorrt", "jax"),
}

__all__ = ["PEERS", "Peer", "PeerUnavailable", "Prepared", "default_peers", "parse_peers"]


def default_peers(device: str, *, quick: bool) -> list[str]:
    """Names of the peers of a sweep that nobody asked for by name."""
    left_out = ASKED_FOR[device] + (NOT_QUICK[device] if quick else ())
    return [name for name in parse_peers("all", device) if name not in left_out]


def parse_peers(text: str, device: str) -> list[str]:
    """ "eager-nchw,engine" -> names of `PEERS` in the table's order, "all" -> every one that applies to
    `device`; ValueError for another.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if asked == ["all"]:
        return [name for name, peer in PEERS.items() if device in peer.devices]
    for name in asked:
        if name not in PEERS:
            raise ValueError(f"peers: {name!r} is not known; allowed: all, {', '.join(PEERS)}")
    if not asked:
        raise ValueError(f"peers: {text!r} is empty; allowed: all, {', '.join(PEERS)}")
    return [name for name in PEERS if name in asked]
