"""What a configuration costs in an `InferenceEngine`: memory by its planner, time by running it."""

from __future__ import annotations

import torch

from effnet_fast.inference import InferenceEngine, fold
from effnet_fast.inference.draft import draft
from effnet_fast.inference.inputs import resolve_dtype
from effnet_fast.measure.timing import LocalCandidate, summarize
from effnet_fast.models.checks import integer
from effnet_fast.models.config import EfficientNetConfig
from effnet_fast.models.efficientnet import EfficientNet

__all__ = ["engine_bytes", "engine_milliseconds"]

_ROUNDS = 3


def engine_bytes(
    config: EfficientNetConfig,
    *,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> int:
    """Bytes of an engine for `config`, planned but not allocated: its activations, what kernels take for
    themselves, and weights.

    Weights are counted unpadded: a packed copy is a few per cent larger. The forms of its blocks may depend
    on ceilings that are measured once in a process, as in an engine. Arguments as in `InferenceEngine`.
    """
    integer("batch_size", batch_size, 1)
    device = torch.device(device)
    dtype = resolve_dtype(dtype, device)
    with torch.device("meta"):
        network = fold(EfficientNet(config).eval())
    size = (config.resolution, config.resolution)
    drafted = draft(network, size, batch=batch_size, dtype=dtype, image_dtype=torch.float32, device=device)
    return drafted.needed_bytes(batch_size)


def engine_milliseconds(
    config: EfficientNetConfig,
    *,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    seconds: float = 0.3,
    seed: int = 0,
) -> float:
    """Milliseconds of one call of an engine with `batch_size` images, measured on `device`.

    The median of three samples of `seconds` each. Weights are random, drawn from `seed`: time depends on
    shapes alone. The global random state is left as it was. Arguments as in `InferenceEngine`.
    """
    integer("batch_size", batch_size, 1)
    device = torch.device(device)
    if device.type == "meta":
        raise ValueError("device must be one that computes, such as cpu or cuda, got meta")
    side = config.resolution
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EfficientNet(config).eval().requires_grad_(False)
        images = torch.randn(batch_size, config.in_chans, side, side)
    engine = InferenceEngine(model, batch_size=batch_size, dtype=dtype, device=device)
    engine.warmup()
    images = images.to(device=device, dtype=engine.dtype, memory_format=torch.channels_last)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    candidate = LocalCandidate(lambda: engine(images), synchronize=synchronize)
    return 1e3 * summarize([candidate.sample(seconds) for _ in range(_ROUNDS)]).median
