"""Compound scaling from scratch: train tiny networks, search alpha, beta and gamma, scale up by the result.

    python examples/grid_search.py                      # minutes on one core; may be interrupted
    python examples/grid_search.py --file results.json

Images are the 1797 handwritten digits that scikit-learn ships (8 x 8 pixels, enlarged), two thirds to train
on, one third to test. The score of a configuration is the mean test accuracy of networks trained from several
seeds. What takes weeks on ImageNet takes minutes here, and says nothing about ImageNet: the point is the
procedure.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from effnet_fast.models import EfficientNet, EfficientNetConfig, MBConvConfig, count_macs, count_parameters
from effnet_fast.scaling import GridSearch, grid_search, scaled_model_config

# A network of stride 8 for 16 x 16 images. Two or three layers a stage, so that depth has steps to scale by.
STAGES = (
    MBConvConfig(expand=1, kernel=3, stride=1, channels=16, layers=2),
    MBConvConfig(expand=4, kernel=3, stride=2, channels=24, layers=2),
    MBConvConfig(expand=4, kernel=3, stride=2, channels=40, layers=3),
)
NETWORK = {"base_stages": STAGES, "base_resolution": 16, "resolution_divisor": 2, "num_classes": 10}
SEARCH = {"step": 0.2, "tolerance": 0.15}
SEEDS = (0, 1, 2)
EPOCHS = 4
BATCH = 64


def digits(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images [N, 3, size, size] and labels, test images and labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1  # 0..16 -> -1..1
    images = F.interpolate(images, size=(size, size), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(data.target)
    train, test = train_test_split(range(len(labels)), test_size=1 / 3, random_state=0, stratify=data.target)
    return images[train], labels[train], images[test], labels[test]


def accuracy(config: EfficientNetConfig, seed: int) -> float:
    """Test accuracy of a network trained from `seed`."""
    torch.manual_seed(seed)
    images, labels, test_images, test_labels = digits(config.resolution)
    # Stochastic depth is for hundreds of epochs.
    model = EfficientNet(replace(config, drop_path_rate=0.0))
    steps = EPOCHS * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels))
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return float((model(test_images).argmax(1) == test_labels).float().mean())


def score(config: EfficientNetConfig) -> float:
    """Mean test accuracy over the seeds."""
    return sum(accuracy(config, seed) for seed in SEEDS) / len(SEEDS)


def search(file: Path) -> GridSearch:
    """The grid search of this example; finished networks are taken from `file`."""
    label = f"digits, mean accuracy of {len(SEEDS)} seeds, {EPOCHS} epochs"
    return grid_search(score, file=file, label=label, **SEARCH, **NETWORK)


@click.command()
@click.option("--file", default=Path(__file__).with_suffix(".json"), type=click.Path(path_type=Path))
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="The networks are tiny."
)
def main(file: Path, threads: int) -> None:
    """Search, show every point, what a seed makes of one network, and the cost of the best triple's phi."""
    torch.set_num_threads(threads)
    found = search(file)
    console = Console(highlight=False)
    table = Table(title="phi = 1, best first")
    for heading in ("alpha", "beta", "gamma", "product", "M multiply-adds", "accuracy"):
        table.add_column(heading, justify="right")
    for point in sorted(found.points, key=lambda point: -point.score):
        values = (point.alpha, point.beta, point.gamma)
        cost = (f"{point.product:.2f}", f"{point.macs / 1e6:.2f}", f"{point.score:.2%}")
        table.add_row(*(f"{value:g}" for value in values), *cost)
    console.print(table)
    base = [accuracy(scaled_model_config(0, **NETWORK), seed) for seed in SEEDS]
    console.print(f"phi = 0, by seed: {', '.join(f'{value:.2%}' for value in base)}")
    best = found.best
    table = Table(title=f"scaled by alpha {best.alpha:g}, beta {best.beta:g}, gamma {best.gamma:g}")
    for heading in ("phi", "pixels", "M parameters", "M multiply-adds"):
        table.add_column(heading, justify="right")
    for phi in range(4):
        config = scaled_model_config(phi, alpha=best.alpha, beta=best.beta, gamma=best.gamma, **NETWORK)
        cost = (f"{count_parameters(config) / 1e6:.3f}", f"{count_macs(config) / 1e6:.2f}")
        table.add_row(str(phi), str(config.resolution), *cost)
    console.print(table)


if __name__ == "__main__":
    main()
