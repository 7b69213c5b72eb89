"""The CUDA kernels of squeeze_excite_gate, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops.schemas import ACTIVATIONS, GATES
from effnet_fast.testing import Expectation, make_args
from tests.emulation.emulator import emulate

OP = "squeeze_excite_gate"
# Pixels of one image that make this many tiles of 16 x 16.
MAPS = {1: (7, 7), 3: (33, 9), 50: (75, 150)}


def run(args: list, seed: int = 0, multiprocessors: int = 132) -> torch.Tensor:
    sums, count, w1, b1, w2, b2, activation, gate = args
    n, t, c = sums.shape
    y = torch.empty(n, c)
    emulate(
        OP, {"sums": sums, "w1": w1, "b1": b1, "w2": w2, "b2": b2}, {"y": y}, seed,
        n=n, t=t, c=c, s=w1.shape[0], count=count, multiprocessors=multiprocessors,
        activation=activation, gate=gate,
    )  # fmt: skip
    return y


def arguments(n: int, t: int, c: int, s: int, **others) -> list:
    h, w = MAPS[t]
    args = make_args(OP, n=n, c=c, h=h, w=w, s=s, dtype=torch.float32, **others)
    assert args[0].shape == (n, t, c)
    return args


@pytest.mark.parametrize("c", [8, 24, 136, 27])
@pytest.mark.parametrize("s", [1, 5, 48])
@pytest.mark.parametrize("t", [1, 3, 50])
def test_result_is_within_budget(c, s, t) -> None:
    for n in (0, 1, 3, 17):
        args = arguments(n, t, c, s)
        Expectation.of(OP, args).assert_within(run(args))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gate", GATES)
def test_activations_and_gates(activation, gate) -> None:
    args = arguments(3, 3, 24, 5, activation=activation, gate=gate)
    args[2] = args[2] * 8  # reach the ends of every activation
    Expectation.of(OP, args).assert_within(run(args))


@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_images_of_a_block_do_not_change_the_result(multiprocessors) -> None:
    args = arguments(17, 1, 136, 48)
    torch.testing.assert_close(run(args, multiprocessors=multiprocessors), run(args), rtol=0, atol=0)
    Expectation.of(OP, args).assert_within(run(args, multiprocessors=multiprocessors))


def test_absent_biases() -> None:
    args = arguments(3, 1, 27, 5, without=("b1", "b2"))
    Expectation.of(OP, args).assert_within(run(args))


def test_unaligned_sums_take_the_scalar_path() -> None:
    args = arguments(3, 50, 24, 5)
    memory = torch.empty(args[0].numel() + 1)
    memory[1:] = args[0].flatten()
    expected = Expectation.of(OP, args)
    args[0] = memory[1:].view(args[0].shape)
    expected.assert_within(run(args))


def test_order_of_blocks_and_threads_does_not_matter() -> None:
    args = arguments(5, 50, 136, 48)
    first = run(args, seed=1)
    for seed in range(2, 6):
        assert torch.equal(run(args, seed=seed), first)


def test_widest_layer_of_b7() -> None:
    args = arguments(2, 1, 3840, 160)
    for multiprocessors in (1, 132):
        Expectation.of(OP, args).assert_within(run(args, multiprocessors=multiprocessors))


def test_nan_stays_in_its_image() -> None:
    args = arguments(3, 3, 24, 5, activation="relu6", gate="hardsigmoid")
    args[0][1, 0, 7] = torch.nan
    y = run(args)
    assert y[1].isnan().all()
    assert y[[0, 2]].isfinite().all()
