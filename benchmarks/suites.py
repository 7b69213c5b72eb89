"""Fixed lists of cases and peers, each with a result file of its own, and the ratios they are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cases import Case, describe_model, sweep
from benchmarks.runner import QUICK, Settings

#: Most 1e9 multiply-adds of a call of the larger batch: 16 images of B3 (29), not of B4 (70) or V2-S (134).
MOST_GMACS = 40.0
LARGER_BATCHES = (16, 4)


@dataclass(frozen=True)
class Target:
    """A ratio that the engine is to reach on `model` at `batches`, in every dtype of the suite.

    Args:
        model: by name.
        batches: that count; empty for all.
        group: of the peers whose fastest is the measure; see `benchmarks.tables.RATIOS`.
        least: images per second of the engine over theirs.
    """

    model: str
    batches: tuple[int, ...]
    group: str
    least: float


@dataclass(frozen=True)
class Suite:
    """What `python -m benchmarks models --suite` measures on `device`.

    `also` are (model, batch) beside the batches of `batches_of`, and `only` peers that one model alone gets.
    """

    device: str
    models: tuple[str, ...]
    also: tuple[tuple[str, int], ...]
    dtypes: tuple[str, ...]
    peers: tuple[str, ...]
    only: tuple[tuple[str, str], ...]
    settings: Settings
    targets: tuple[Target, ...]

    def cases(self, models: Sequence[str] = (), dtypes: Sequence[str] = ()) -> list[Case]:
        """Its cases, or those of some `models` and `dtypes`; ValueError for one that it does not have."""
        for name, asked, known in (("--model", models, self.models), ("--dtype", dtypes, self.dtypes)):
            for value in asked:
                if value not in known:
                    raise ValueError(f"{name}: {value} is not in the suite; allowed: {', '.join(known)}")
        found: list[Case] = []
        for model in models or self.models:
            batches = {*batches_of(model), *(batch for other, batch in self.also if other == model)}
            found += sweep([model], sorted(batches), dtypes or self.dtypes, self.device)
        return found

    def peers_of(self, model: str) -> tuple[str, ...]:
        """The peers that run `model`."""
        return (*(peer for only, peer in self.only if only == model), *self.peers)


def batches_of(model: str) -> tuple[int, int]:
    """One image, and the largest of `LARGER_BATCHES` whose call keeps `MOST_GMACS`, else the smallest."""
    _, gmacs = describe_model(model)
    fitting = [batch for batch in LARGER_BATCHES if batch * gmacs <= MOST_GMACS]
    return 1, (fitting or LARGER_BATCHES[-1:])[0]


CPU = Suite(
    device="cpu",
    models=(
        "efficientnet_b0",
        "efficientnet_b1",
        "efficientnet_b2",
        "efficientnet_b3",
        "efficientnet_b4",
        "efficientnetv2_s",
        "efficientnet_lite0",
        "mobilenetv2_100",
    ),
    also=(("efficientnet_b2", 4),),
    dtypes=("float32", "bfloat16"),
    # "eager-folded" is the best of stock eager PyTorch in a process as it comes.
    peers=(
        "eager-folded",
        "eager-tuned",
        "compiled",
        "onnxruntime",
        "openvino-latency",
        "openvino-throughput",
        "engine",
    ),
    only=(("efficientnet_b0", "compiled-plain"),),
    settings=QUICK,
    # On 2 cores with AVX-512 and its bfloat16 dot products. "stock": every peer but this project's.
    targets=(
        Target("efficientnet_b0", (16,), "runtime", 1.5),
        Target("efficientnet_b0", (16,), "plain", 2.1),
        Target("efficientnet_b0", (16,), "compiled", 2.1),
        Target("efficientnet_b0", (1,), "runtime", 1.35),
        Target("efficientnet_b2", (4,), "runtime", 1.2),
        Target("efficientnet_b4", (4,), "runtime", 1.2),
        Target("efficientnetv2_s", (), "stock", 1.0),
        Target("efficientnet_lite0", (), "stock", 1.0),
        Target("mobilenetv2_100", (), "stock", 1.0),
    ),
)

SUITES = {"cpu": CPU}
