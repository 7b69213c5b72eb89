"""What a device can do at most: rates of memory, multiply-adds and special functions, in 0.2 seconds.

The rates are those of this project's own kernels at their best (a compute-bound shape, its data in cache),
not of a data sheet: a cost model divides work by them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch

from effnet_fast.measure.caches import cache_sizes
from effnet_fast.measure.probes import LAUNCHES, Probes, has_fused_kernel

__all__ = ["Ceilings", "measure_ceilings"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Each call is timed once a round and its best over the rounds counts: a ceiling is a maximum, and whatever
# else the machine does can only take from it.
_ROUNDS = 7

# Used where the system does not name its caches: the smallest of current server cores.
_FALLBACK_CACHE = 8 << 20

# What a copy reads and writes where little of it may be found in the cache: twice the cache, within bounds
# (pages that the system has to find take 3 ms a MiB on a virtual machine).
_LEAST_COPY, _MOST_COPY = 64 << 20, 256 << 20

# Rows, columns and depth of a matrix product that fills a GPU.
_PRODUCT = 4096

# Special functions a multiprocessor starts in a clock, of every architecture from sm_70 on: CUDA C++
# Programming Guide, "Throughput of native arithmetic instructions".
_SPECIAL_PER_CLOCK = 16

_measured: dict[tuple[str, torch.dtype, int], Ceilings] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Ceilings:
    """Rates of a whole device for one storage dtype. `dataclasses.asdict` and `Ceilings(**it)` round-trip.

    Attributes:
        memory_bytes: bytes a second, read and written, between the device and its memory.
        cache_bytes: the same while the working set is within `cache_size` bytes.
        cache_size: bytes of the cache that all threads or multiprocessors share (last level; L2 of a GPU).
        matrix_macs: multiply-adds a second of a 1x1 convolution.
        fused_macs: those of the expansion inside `expand_depthwise`, which fills a ring a row at a time.
        vector_macs: multiply-adds a second of a depthwise convolution.
        special: SiLU or sigmoid evaluations a second.
        launch_seconds: what a call costs besides its work, host included.
        additive: whether the times of these add up. A CPU's core loads, multiplies and evaluates SiLU through
            the same ports and a kernel does so in turns; on a GPU the units work side by side, and the one
            that takes longest counts.

    Raises: TypeError where a number or a bool is none, ValueError where a number is not positive and finite.
    """

    memory_bytes: float
    cache_bytes: float
    cache_size: float
    matrix_macs: float
    fused_macs: float
    vector_macs: float
    special: float
    launch_seconds: float
    additive: bool

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "additive":
                if not isinstance(value, bool):
                    raise TypeError(f"additive must be True or False, got {value!r}")
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{field.name} must be a number, got {value!r}")
            elif not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be positive and finite, got {value!r}")


def measure_ceilings(device: torch.device | str, dtype: torch.dtype) -> Ceilings:
    """The ceilings of `device` for maps of `dtype`; measured once in a process for a number of threads.

    Args:
        device: "cpu", or a CUDA device.
        dtype: float32, float16 or bfloat16.

    Raises:
        TypeError: another dtype. RuntimeError: another kind of device, or one that is not there.

    On a CPU its threads are those of `torch.get_num_threads()`. Takes 0.1 to 0.3 s on a quiet CPU.
    """
    device = torch.device(device)
    if dtype not in _DTYPES:
        names = ", ".join(str(allowed).removeprefix("torch.") for allowed in _DTYPES)
        raise TypeError(f"dtype must be one of {names}, got {dtype}")
    if device.type not in ("cpu", "cuda"):
        raise RuntimeError(f'ceilings are measured on "cpu" and "cuda", got device {str(device)!r}')
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"ceilings of {str(device)!r}: PyTorch finds no CUDA device")
    # One at a time: two would time each other, and restore each other's number of threads.
    with _lock, torch.inference_mode():
        key = (str(device), dtype, torch.get_num_threads())
        if key not in _measured:
            if device.type == "cpu":
                _measured[key] = _of_cpu(dtype)
            else:
                with torch.cuda.device(device):
                    _measured[key] = _of_cuda(dtype, device)
        return _measured[key]


def _of_cpu(dtype: torch.dtype) -> Ceilings:
    device = torch.device("cpu")
    sizes = cache_sizes()
    cache_size = max(sizes.get(3, 0), torch.get_num_threads() * sizes.get(2, 0)) or _FALLBACK_CACHE
    copies = _copies(cache_size, device)
    probes = Probes(dtype, device)
    threads = torch.get_num_threads()
    together = _best(copies, _seconds_on_host, rounds=3)
    # One thread computes and the others count as much: a core is as fast beside busy ones, but two threads
    # on a machine with one core free waited for each other and seemed 20 times slower than one.
    torch.set_num_threads(1)
    try:
        seconds = _best({**copies, **probes.calls(), "launches": probes.launches}, _seconds_on_host)
    finally:
        torch.set_num_threads(threads)
    # Memory is shared: all threads get what they get together, and never less than one of them.
    seconds |= {name: min(taken, seconds[name]) for name, taken in together.items()}
    return Ceilings(
        **_bandwidths(copies, seconds, cache_size),
        **{name: threads * rate for name, rate in probes.rates(seconds).items()},
        launch_seconds=seconds["launches"] / LAUNCHES,
        additive=True,
    )


def _of_cuda(dtype: torch.dtype, device: torch.device) -> Ceilings:
    properties = torch.cuda.get_device_properties(device)
    copies = _copies(properties.L2_cache_size, device)
    # As many images as its cache holds: one is too little work for so many multiprocessors.
    probes = Probes(dtype, device, scale=max(1, properties.L2_cache_size >> 20))
    random = torch.Generator(device).manual_seed(0)
    left, right = torch.randn(2, _PRODUCT, _PRODUCT, device=device, generator=random).to(dtype)
    calls = {**copies, **probes.calls(), "product": lambda: left @ right, "launches": probes.launches}
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # as in the kernels: float32 is float32
    try:
        seconds = _best(calls, _seconds_on_cuda)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    rates = probes.rates(seconds)
    rates["matrix_macs"] = _PRODUCT**3 / seconds["product"]
    if not has_fused_kernel(device, dtype):
        rates["fused_macs"] = rates["matrix_macs"]  # a composition: its expansion is a 1x1 convolution
    # Units that work side by side do not show in the difference of two kernels.
    rates["special"] = _SPECIAL_PER_CLOCK * properties.multi_processor_count * properties.clock_rate * 1e3
    return Ceilings(
        **_bandwidths(copies, seconds, properties.L2_cache_size),
        **rates,
        launch_seconds=seconds["launches"] / LAUNCHES,
        additive=False,
    )


class _Copy:
    """A copy within the device that reads and writes `nbytes` bytes."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self._source, self._target = torch.zeros(nbytes // 8 * 2, device=device).chunk(2)
        self.nbytes = 2 * self._source.nbytes

    def __call__(self) -> None:
        self._target.copy_(self._source)


def _copies(cache_size: int, device: torch.device) -> dict[str, _Copy]:
    """One that takes half of the cache, and one that finds little there."""
    far = min(max(2 * cache_size, _LEAST_COPY), _MOST_COPY)
    return {"cache": _Copy(cache_size // 2, device), "memory": _Copy(far, device)}


def _bandwidths(copies: dict[str, _Copy], seconds: dict[str, float], cache_size: int) -> dict[str, float]:
    memory, cache = (copies[name].nbytes / seconds[name] for name in ("memory", "cache"))
    # A copy within the L2 of a GPU is short: where it shows the launch, the rate of the memory is known.
    return {"memory_bytes": memory, "cache_bytes": max(memory, cache), "cache_size": cache_size}


def _best(
    calls: Mapping[str, Callable[[], object]],
    seconds_of: Callable[[Callable[[], object]], float],
    rounds: int = _ROUNDS,
) -> dict[str, float]:
    """{name: least seconds} of `rounds` rounds, in each of which every call is made twice and timed once.

    The first of the two brings its data back into the cache.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            samples[name].append(seconds_of(call))
    return {name: min(taken) for name, taken in samples.items()}


def _seconds_on_host(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _seconds_on_cuda(call: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3
