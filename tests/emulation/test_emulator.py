"""The emulator refuses broken kernels, naming place and fault, and computes right ones as a GPU does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.emulation.emulator import EmulationError, emulate

SOURCE = Path(__file__).parent / "mini_kernels.cpp"


def lines(kernel: str) -> list[int]:
    """Where mini_kernels.cpp says that a report about `kernel` must point."""
    marker = f"// report: {kernel}"
    return [i for i, line in enumerate(SOURCE.read_text().splitlines(), 1) if line.endswith(marker)]


def run(name: str, count: int = 64, outputs: int | None = None, seed: int = 0, blocks: int = 1):
    x = torch.arange(count, dtype=torch.float32)
    y = torch.empty(count if outputs is None else outputs)
    emulate(name, {"x": x}, {"y": y}, seed, SOURCE, count=count, blocks=blocks)
    return x, y


@pytest.mark.parametrize("seed", range(8))
def test_right_kernels_are_accepted(seed) -> None:
    x, y = run("reverse", seed=seed)
    assert torch.equal(y, x.flip(0))
    x, y = run("refill", seed=seed)
    assert torch.equal(y, 2 * x.flip(0))
    x, y = run("swap_in_warp", seed=seed)
    assert torch.equal(y, x.view(-1, 2).flip(1).flatten())
    x, y = run("dependent", seed=seed)
    assert torch.equal(y, x)
    x, y = run("overlap", outputs=1, seed=seed, blocks=3)
    assert y.item() == 1
    x, y = run("pipeline", count=192, seed=seed)
    assert torch.equal(y, x.view(3, 64).flip(1).flatten())


BROKEN = {
    # operator: (kernel, number of values, what the report says)
    "missing_barrier": ("reverse<false>", 64,
                        r"load of (shared memory that was never written|race: no barrier)"),
    "missing_second_barrier": ("refill<false>", 64,
                               r"(store|load) of race: no barrier since the (read|write) by"),
    "missing_sync_warp": ("swap_in_warp<false>", 64,
                          r"load of (shared memory that was never written|race: no barrier since the write)"),
    "missing_wait": ("pipeline<2>", 192,
                     r"load of shared memory that a cp.async by thread \d+ at line \d+ may"),
    "copy_without_wait": ("copy_without_wait", 64, "a cp.async that was never waited for"),
    "halo_before": ("halo<true>", 64, "load of 4 bytes at byte -4 of 'x', which has 256"),
    "halo_behind": ("halo<false>", 64, "load of 4 bytes at byte 256 of 'x', which has 256"),
    "misaligned": ("misaligned", 64, r"load of 16 bytes at byte \d+ of 'x', misaligned"),
    "misaligned_shared": ("misaligned_shared", 64, "load of 8 bytes at byte 4 of shared memory, misaligned"),
    "beyond_shared": ("beyond_shared", 128, "store of 4 bytes at byte 512 of shared memory, which has 512"),
    "early_return": ("early_return", 64,
                     r"deadlock: 32 threads returned, 32 threads wait at sync_threads \("),
    "half_a_warp": ("half_a_warp", 64, r"diverged: at sync_threads while thread \d+ waits at shuffle|"
                    r"deadlock: 16 threads wait at shuffle .*, 48 threads wait at sync_threads"),
    "two_barriers": ("two_barriers", 64, r"diverged: at sync_threads while thread \d+ waits at sync_threads"),
    "write_to_input": ("write_to_input", 64, "store of 4 bytes to the input 'x'"),
    "unwritten_shared": ("unwritten_shared", 64, "load of shared memory that was never written"),
    "constant_of_output": ("constant_of_output", 64, "load_constant of what is not weights"),
    "missing_dependency_wait": ("dependent<false>", 64,
                                r"load before grid_dependency_wait\(\), in a dependent launch"),
    "conflict": ("shared_output<false>", 64,
                 "store of race: 'y' was written with another value by another block"),
    "neighbour_block": ("neighbour_block", 64,
                        "load of race: 'y' was written by another block of this launch"),
    "null_pointer": ("null_pointer", 64, "load of 4 bytes at a null pointer"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernels_are_refused_in_any_order(name) -> None:
    kernel, count, problem = BROKEN[name]
    place = rf"{re.escape(kernel)}: block \(\d, 0, 0\), thread \d+, mini_kernels.cpp:(\d+): (?:{problem})"
    for seed in range(8):
        with pytest.raises(EmulationError) as caught:
            run(name, count, seed=seed, blocks=3)
        found = re.match(place, str(caught.value))
        assert found, str(caught.value)
        assert int(found[1]) in lines(kernel), str(caught.value)


def test_races_are_found_as_races() -> None:
    """Also in the order that gives the right result by luck."""
    reports = set()
    for seed in range(20):
        with pytest.raises(EmulationError) as caught:
            run("hand_over", outputs=1, seed=seed)
        reports.add(re.search("never written|race", str(caught.value))[0])
    assert reports == {"never written", "race"}


def test_an_unwritten_tail_is_refused_and_shows_as_nan() -> None:
    y = torch.zeros(63)
    with pytest.raises(
        EmulationError, match=r"12 of the 252 bytes of output 'y' were never written, the first at 240"
    ):
        emulate("no_tail", {"x": torch.ones(63)}, {"y": y}, 0, SOURCE, count=63, blocks=1)
    assert torch.equal(y[:60], torch.ones(60))
    assert y[60:].isnan().all()


def test_the_process_survives_and_the_next_call_is_right() -> None:
    with pytest.raises(EmulationError):
        run("missing_wait", 192)
    x, y = run("reverse")
    assert torch.equal(y, x.flip(0))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (dict(threads=48), r"reverse<true>: threads: 32 to 1024, whole warps"),
        (dict(threads=2048), r"reverse<true>: threads: 32 to 1024, whole warps"),
        (dict(shared_bytes=1 << 18), r"reverse<true>: more than 227 KiB of shared memory"),
        (dict(y=1 << 16), r"reverse<true>: the grid is larger than a GPU takes"),
    ],
)
def test_launches_that_a_gpu_refuses(shape, problem) -> None:
    with pytest.raises(EmulationError, match=problem):
        emulate("launch", {"x": torch.ones(64)}, {"y": torch.ones(64)}, 0, SOURCE,
                **{"x": 1, "y": 1, "threads": 64, "shared_bytes": 256, **shape})  # fmt: skip


def test_an_empty_grid_is_no_launch() -> None:
    blocks = emulate("launch", {"x": torch.ones(0)}, {"y": torch.ones(0)}, 0, SOURCE,
                     x=0, y=1, threads=64, shared_bytes=0)  # fmt: skip
    assert blocks == 0


@pytest.mark.parametrize("seed", range(4))
def test_tickets_find_the_last_block(seed) -> None:
    x, y = torch.arange(7.0), torch.empty(1)
    emulate("last_block", {"x": x}, {"y": y}, seed, SOURCE, blocks=7)
    assert y.item() == 42


def test_arguments_that_a_binding_misses_are_named() -> None:
    with pytest.raises(ValueError, match="no argument 'count'"):
        emulate("reverse", {"x": torch.ones(64)}, {"y": torch.ones(64)}, 0, SOURCE, blocks=1)
    with pytest.raises(ValueError, match="no operator is bound as 'nothing'"):
        emulate("nothing", {}, {}, 0, SOURCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_ldmatrix_and_mma_are_a_matrix_product(dtype, transpose_a, transpose_b) -> None:
    a = torch.randint(-8, 9, (16, 16)).to(dtype)
    b = torch.randint(-8, 9, (16, 8)).to(dtype)
    d = torch.empty(16, 8)
    # mma wants b by columns: without a transposing load it is stored as [8][16].
    stored = {
        "a": (a.T if transpose_a else a).contiguous(),
        "b": (b if transpose_b else b.T).contiguous(),
    }
    emulate("fragments", stored, {"d": d}, 0, SOURCE, dtype=dtype,
            transpose_a=transpose_a, transpose_b=transpose_b)  # fmt: skip
    start = torch.tensor([[1.0, 2.0]] * 8 + [[3.0, 4.0]] * 8).repeat(1, 4)
    assert torch.equal(d, a.float() @ b.float() + start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 2, 16])
def test_packs_convert_and_activate(dtype, count) -> None:
    count = min(count, 16 // dtype.itemsize)
    x = torch.cat([torch.randn(252), torch.tensor([torch.inf, torch.nan, 0.0, -0.0])]).to(dtype)
    y = torch.empty_like(x)
    emulate("convert", {"x": x}, {"y": y}, 0, SOURCE, dtype=dtype, count=count, values=x.numel())
    # In 16 bits the kernel is given x / 2.
    expected = F.silu(x.float() * (1 if dtype == torch.float32 else 2)).to(dtype)
    torch.testing.assert_close(y, expected, equal_nan=True)
