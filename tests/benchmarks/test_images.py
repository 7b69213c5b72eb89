"""On a GPU every call of a peer reads another copy of its images, so that they come from memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.peers import PEERS, images
from benchmarks.peers.images import MOST_COPIES, copies_for, in_turn
from benchmarks.peers.peer import inference_call

H200_L2 = 50 << 20


def batch(count: int, side: int = 224) -> torch.Tensor:
    return torch.empty(count, 3, side, side, dtype=torch.float16, device="meta")


def test_copies_fill_the_cache_twice():
    for count in (1, 8, 32, 128):
        copies = copies_for(batch(count), H200_L2)
        nbytes = count * 3 * 224 * 224 * 2
        assert copies * nbytes >= 2 * H200_L2 > (copies - 1) * nbytes
    assert copies_for(batch(32), H200_L2) == 11
    assert copies_for(batch(1024), H200_L2) == 1  # it pushes itself out
    assert copies_for(batch(1, 32), H200_L2) == MOST_COPIES
    assert copies_for(batch(0), H200_L2) == MOST_COPIES


def test_each_turn_gives_another_copy_of_the_same_images():
    given = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    turn = in_turn(given, cache_bytes=4 * given.numel() * 2)  # twice that is four of them
    seen = [turn() for _ in range(8)]
    assert len({tensor.data_ptr() for tensor in seen}) == 4
    assert all(torch.equal(tensor, given) and tensor.stride() == given.stride() for tensor in seen)
    assert [tensor.data_ptr() for tensor in seen[:4]] == [tensor.data_ptr() for tensor in seen[4:]]


def test_a_cpu_reads_the_images_themselves():
    given = torch.randn(1, 3, 8, 8)
    turn = in_turn(given)
    assert turn() is given
    assert turn() is given


def test_an_eager_peer_reads_them_in_turn(monkeypatch):
    monkeypatch.setattr(images, "cache_of", lambda device: 3 * 4 * 3 * 8 * 8 // 2)
    addresses = []

    class Network(nn.Module):
        def forward(self, x):
            addresses.append(x.data_ptr())
            return x.mean((2, 3))

    call = inference_call(Network(), torch.randn(1, 3, 8, 8))
    assert torch.equal(call(), call())
    call()
    assert len(set(addresses)) == 3


@pytest.mark.parametrize("name", ["eager-nchw", "eager-folded", "engine"])
def test_logits_do_not_depend_on_the_turn(b0, name, monkeypatch):
    given = torch.randn(2, 3, 64, 64)
    prepared = {}
    for cache in (0, 4 * given.numel()):
        monkeypatch.setattr(images, "cache_of", lambda device, cache=cache: cache)
        prepared[cache] = PEERS[name].prepare(copy.deepcopy(b0), given, torch.float32)
    once, turns = prepared.values()
    assert all(torch.equal(once.call(), turns.call()) for _ in range(3))
