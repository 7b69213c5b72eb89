"""`python -m benchmarks profile`: where the time goes, and how far from the machine's peak it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import torch

import effnet_fast
from benchmarks import profile, profile_tables
from benchmarks.cases import DTYPES
from benchmarks.console import FOLDER, LOCAL, check_replaceable, new_console, refuse, shown_path
from benchmarks.results import Results, save
from benchmarks.subject import distinct_images, rows_of_batch, seeded_model
from effnet_fast.measure import Peaks, cpu_peaks, describe

NO_PEAKS = "of peak: unknown, for the native library that measures peaks is missing or older"


@click.command("profile")
@click.option("--model", "name", default="efficientnet_b0", show_default=True)
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1))
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(list(DTYPES)))
@click.option("--repeats", default=15, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
@click.option("--out", type=FOLDER, default=LOCAL, help="Folder of the result files.")
def profile_command(name: str, batch: int, dtype: str, repeats: int, threads: int, out: Path) -> None:
    """Show where effnet_fast's time goes: every step of the engine's plan, its blocks, and sums by kind.

    "ideal ms" is what the arithmetic takes at the peaks of this CPU, "of peak" the share that is reached.
    """
    if threads:
        torch.set_num_threads(threads)
    path = out / f"profile-{name}-{batch}-{dtype}.json"
    command = f"python -m benchmarks profile --model {name} --batch {batch} --dtype {dtype}"
    try:
        model = seeded_model(name)
        size = model.preprocessing.size
        engine = effnet_fast.InferenceEngine(model, batch_size=batch, dtype=DTYPES[dtype])
        images = distinct_images(size)[rows_of_batch(batch)].to(DTYPES[dtype])
        images = images.contiguous(memory_format=torch.channels_last)
        peaks = cpu_peaks(torch.get_num_threads())
        steps = profile.profile_engine(engine, images, repeats=repeats, peaks=peaks)
        settings = {"repeats": repeats, "peaks": asdict(peaks) if peaks else None}
        results = Results("profile", describe(), settings, command, [])
        results.rows = profile.rows(name, dtype, batch, steps)
        check_replaceable(path, "profile")
        save(results, path)
    except (ValueError, profile.ProfileError) as error:
        raise refuse(error) from error
    console = new_console()
    title = f"{name} @{size}, batch {batch}, {dtype}: where the time goes"
    console.print(profile_tables.steps_table(steps))
    console.print(profile_tables.blocks_table(steps))
    console.print(profile_tables.groups_table(title, steps))
    console.print(peaks_text(peaks, torch.get_num_threads()), markup=False, highlight=False)
    console.print(f"written: {shown_path(path)}, .csv", markup=False, highlight=False)


def peaks_text(peaks: Peaks | None, threads: int) -> str:
    """A line below a table whose shares are of `peaks`."""
    if peaks is None:
        return NO_PEAKS
    return (
        f"peak of {threads} threads: {peaks.fma_macs / 1e9:.1f} GMAC/s in float32, "
        f"{peaks.dot_macs / 1e9:.1f} in bfloat16 pairs, {peaks.silu / 1e9:.2f} G SiLU/s"
    )
