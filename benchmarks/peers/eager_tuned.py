"""Eager PyTorch at its best on a CPU: `eager-folded` in a process whose allocator keeps its memory."""

from __future__ import annotations

from benchmarks.peers import eager_folded
from benchmarks.peers.peer import KEEP_MEMORY, Peer

PEER = Peer(
    "eager-tuned",
    "eager tuned",
    "tuned",
    eager_folded.prepare,
    {**eager_folded.PEER.settings, "allocator": "glibc, keeping freed memory"},
    environment=KEEP_MEMORY,
    devices=("cpu",),
    elsewhere="PyTorch's allocator on a GPU keeps its memory anyway: this is eager-folded",
)
