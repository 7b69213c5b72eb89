"""The peers: every way of running the same network that the benchmarks compare, one small file each."""

from __future__ import annotations

from benchmarks.peers import (
    compiled,
    eager_channels_last,
    eager_folded,
    eager_nchw,
    eager_tuned,
    engine,
    libraries,
    onnx_runtime,
    openvino_runtime,
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
        libraries.TIMM,
        libraries.TORCHVISION,
        eager_tuned.PEER,
        graph_peer(eager_nchw.PEER, name="graph-nchw", label="graph NCHW"),
        graph_peer(eager_channels_last.PEER, name="graph-nhwc", label="graph NHWC"),
        graph_peer(eager_folded.PEER, name="graph-folded", label="graph folded"),
        graph_peer(libraries.TIMM, name="graph-timm", label="graph timm"),
        graph_peer(libraries.TORCHVISION, name="graph-torchvision", label="graph torchvision"),
        compiled.PLAIN,
        compiled.PEER,
        compiled.AUTOTUNE,
        compiled.GRAPHS,
        onnx_runtime.PEER,
        openvino_runtime.LATENCY,
        openvino_runtime.THROUGHPUT,
        engine.UINT8,
        engine.PEER,
    )
}

#: Left out of a device's sweep unless they are asked for: on a CPU the libraries run the operators of the
#: stock peers (tests/benchmarks/test_peers.py), and no launches stand between them; a compiler that returns
#: its memory is never the fastest.
ASKED_FOR = {"cpu": ("timm", "torchvision", "compiled-plain"), "cuda": ()}

#: Left out of the quick sweep besides: uint8 input is compared with float input by `--full`, and the runtimes
#: are packages that only `make bench-full` installs.
NOT_QUICK = {
    "cpu": ("onnxruntime", "openvino-latency", "openvino-throughput", "engine-uint8"),
    "cuda": (),
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
