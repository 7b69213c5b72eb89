"""The peers: every way of running the same network that the benchmarks compare, one small file each."""

from __future__ import annotations

from benchmarks.peers import (
    compiled,
    eager_channels_last,
    eager_folded,
    eager_nchw,
    eager_tuned,
    engine,
)
from benchmarks.peers.peer import Peer, Prepared

#: In the order of the table's columns: from what everybody has to what this project adds.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        eager_nchw.PEER,
        eager_channels_last.PEER,
        eager_folded.PEER,
        eager_tuned.PEER,
        compiled.PEER,
        engine.PEER,
    )
}

__all__ = ["PEERS", "Peer", "Prepared", "parse_peers"]


def parse_peers(text: str) -> list[str]:
    """ "eager-nchw,engine" -> names of `PEERS` in the table's order, "all" -> every one; ValueError for
    another.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if asked == ["all"]:
        return list(PEERS)
    for name in asked:
        if name not in PEERS:
            raise ValueError(f"peers: {name!r} is not known; allowed: all, {', '.join(PEERS)}")
    if not asked:
        raise ValueError(f"peers: {text!r} is empty; allowed: all, {', '.join(PEERS)}")
    return [name for name in PEERS if name in asked]
