"""`python -m benchmarks models`: the sweep over phi, and the suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks import bars, plots, tables
from benchmarks.cases import IMAGE_SIDES, PHIS, Case, networks_between, parse_dtypes, parse_numbers, sweep
from benchmarks.console import (
    FOLDER,
    RESULTS,
    SECONDS,
    new_console,
    result_path,
    run_sweep,
    shown_path,
    usage,
)
from benchmarks.devices import DEVICES, check_device, default_device
from benchmarks.limits import Limits
from benchmarks.network_floor import add_floors, measure_all
from benchmarks.peers import PEERS, default_peers, parse_peers
from benchmarks.progress import Reporter
from benchmarks.results import Results, save
from benchmarks.rows import OK
from benchmarks.runner import QUICK, THOROUGH, Job, Runner, Settings
from benchmarks.suites import SUITES
from benchmarks.targets import target_lines
from effnet_fast.measure import describe, device_slug

#: The default sweep leaves out larger variants to end within five minutes on two cores, and gives a peer that
#: is slow to start one variant.
DEFAULT_PHIS = "0-2"
SLOW_START_PHI = 0

BATCHES = {"cpu": "1,16", "cuda": "1,32,256"}
DTYPES = {"cpu": "float32,bfloat16", "cuda": "float16,bfloat16"}

#: After this no further case of the default sweep is begun: on a busy machine a part is better than half an
#: hour.
DEADLINE_SECONDS = 290.0


@click.command("models")
@click.option("--phi", help="Variants, e.g. 0-7 or 0,4.  [default: 0-2; with --full 0-7]")
@click.option(
    "--model", "model_names", multiple=True, help="Any model by name, instead of --phi; repeatable."
)
@click.option(
    "--continuous", is_flag=True, help="The formula's phi = 0, 0.5, ... 7 in the place of the variants."
)
@click.option(
    "--suite",
    type=click.Choice(list(SUITES)),
    help="A fixed list of models, batches and peers, into results/<device>/<suite>.json; resumes. With "
    "--model and --dtype: those of it.",
)
@click.option("--batch", help="Images per call.  [default: 1,16; on a GPU 1,32,256]")
@click.option("--resolution", help="Sides of the images, e.g. 192,288.  [default: each variant's published]")
@click.option("--dtype", help="[default: float32,bfloat16; on a GPU float16,bfloat16]")
@click.option("--device", type=click.Choice(DEVICES), help="[default: cuda where there is one]")
@click.option(
    "--peers",
    help=f"all (that apply to the device), or some of {', '.join(PEERS)}.  "
    "[default: most, compiled ones for B0 alone]",
)
@click.option("--full", is_flag=True, help="Every variant and peer, into results/<device>/; resumes.")
@click.option(
    "--resume", is_flag=True, help="Keep the finished cases of the result file, measure the others."
)
@click.option("--fresh", is_flag=True, help="With --full or --suite: measure all anew, replace the file.")
@click.option("--out", type=FOLDER, help="Folder of the result files.")
@click.option("--rounds", type=click.IntRange(3), help="[default: 5; with --full 7]")
@click.option("--min-seconds", type=SECONDS, help="Length of one sample.  [default: 0.2; with --full 0.25]")
@click.option("--budget", type=SECONDS, help="Seconds of timing per case.  [default: 12; with --full 40]")
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
def models(
    phi: str | None,
    model_names: tuple[str, ...],
    continuous: bool,
    suite: str | None,
    batch: str | None,
    resolution: str | None,
    dtype: str | None,
    device: str | None,
    peers: str | None,
    full: bool,
    resume: bool,
    fresh: bool,
    out: Path | None,
    rounds: int | None,
    min_seconds: float | None,
    budget: float | None,
    threads: int,
) -> None:
    """Sweep phi: every peer on every variant, batch and dtype, checked, then timed in alternating rounds.

    Exit status 1 when effnet_fast fails its check or breaks off; 2 for a wrong option or an unusable result
    file. Ctrl-C keeps every finished case.
    """
    if model_names and (phi is not None or continuous):
        raise click.UsageError("--model and --phi or --continuous exclude each other")
    given = {"rounds": rounds, "min_seconds": min_seconds, "budget_seconds": budget}
    given = {name: value for name, value in given.items() if value is not None} | {"threads": threads}
    if suite:
        others = {
            "--phi": phi, "--continuous": continuous, "--batch": batch, "--device": device, "--peers": peers,
            "--resolution": resolution, "--full": full,
        }  # fmt: skip
        for option in (option for option, value in others.items() if value):
            raise click.UsageError(f"--suite and {option} exclude each other")
        if not run_suite(suite, model_names, dtype, given, resume=not fresh, out=out):
            raise SystemExit(1)
        return
    chosen = usage(check_device, device)
    asked_phi = phi if phi is not None else (f"{PHIS[0]}-{PHIS[-1]}" if full or continuous else DEFAULT_PHIS)
    indices = usage(parse_numbers, asked_phi, allowed=PHIS, name="--phi")
    names = list(model_names) or [f"efficientnet_b{index}" for index in indices]
    if continuous:
        names = networks_between(min(indices), max(indices))
    batches = usage(parse_numbers, batch or BATCHES[chosen], name="--batch")
    sides = usage(parse_numbers, resolution, allowed=IMAGE_SIDES, name="--resolution") if resolution else ()
    cases = usage(sweep, names, batches, usage(parse_dtypes, dtype or DTYPES[chosen]), chosen, sides)
    narrowed = not (full or peers or model_names or continuous)
    all_peers = usage(parse_peers, peers, chosen) if peers else default_peers(chosen, quick=not full)
    jobs = [Job(case, tuple(_peers_of(case, all_peers) if narrowed else all_peers)) for case in cases]
    settings = replace(THOROUGH if full else QUICK, **given)
    options = [
        *(f"--model {name}" for name in model_names),
        "" if model_names or phi is None else f"--phi {phi}",
        "--continuous" if continuous else "",
        "" if batch in (None, BATCHES[chosen]) else f"--batch {batch}",
        f"--resolution {resolution}" if resolution else "",
        "" if dtype in (None, DTYPES[chosen]) else f"--dtype {dtype}",
        f"--device {device}" if device else "",
        f"--peers {peers}" if peers else "",
        "--full" if full else "",
    ]
    served = run_models(
        new_console(),
        result_path("models", chosen, full=full, out=out),
        jobs,
        settings,
        device=chosen,
        resume=(full or resume) and not fresh,
        command=" ".join(["python -m benchmarks models", *filter(None, options)]),
    )
    if not served:
        raise SystemExit(1)


def run_suite(
    name: str,
    model_names: Sequence[str],
    dtype: str | None,
    given: Mapping[str, float],
    *,
    resume: bool,
    out: Path | None,
    start_peer: Callable | None = None,
) -> bool:
    """Measure the suite called `name`, or those of its cases; see `run_models`.

    `given` are fields of `Settings` that replace the suite's.
    """
    suite = SUITES[name]
    cases = usage(suite.cases, model_names, usage(parse_dtypes, dtype) if dtype else ())
    return run_models(
        new_console(),
        (out or RESULTS / device_slug(suite.device)) / f"{name}.json",
        [Job(case, suite.peers_of(case.model)) for case in cases],
        replace(suite.settings, **given),
        suite=name,
        device=suite.device,
        resume=resume,
        # A part of the suite goes into the same file, and this is what completes it.
        command=f"python -m benchmarks models --suite {name}",
        start_peer=start_peer,
    )


def _peers_of(case: Case, names: list[str]) -> list[str]:
    slow_welcome = case.model == f"efficientnet_b{SLOW_START_PHI}"
    return [name for name in names if slow_welcome or not PEERS[name].slow_start]


def default_jobs(device: str) -> list[Job]:
    """Part two of the main job."""
    phis = parse_numbers(DEFAULT_PHIS, allowed=PHIS, name="--phi")
    batches = parse_numbers(BATCHES[device], name="--batch")
    cases = sweep([f"efficientnet_b{index}" for index in phis], batches, parse_dtypes(DTYPES[device]), device)
    return [Job(case, tuple(_peers_of(case, default_peers(device, quick=True)))) for case in cases]


def default_path() -> Path:
    """The result file of `run_default`."""
    return result_path("models", default_device(), full=False, out=None)


def run_default() -> bool:
    """Run `default_jobs` on the default device, as long as a look may take; see `run_models`."""
    device = default_device()
    return run_models(
        new_console(),
        default_path(),
        default_jobs(device),
        QUICK,
        device=device,
        deadline_seconds=DEADLINE_SECONDS,
    )


def run_models(
    console: Console,
    path: Path,
    jobs: list[Job],
    settings: Settings,
    *,
    suite: str = "",
    device: str = "cpu",
    resume: bool = False,
    command: str = "python -m benchmarks models",
    deadline_seconds: float | None = None,
    start_peer: Callable | None = None,
) -> bool:
    """Run `jobs` into the result file `path`; True when effnet_fast has a time in every case that was run.

    `suite` is noted in the file, so that its targets are shown with the table. `deadline_seconds` and
    `start_peer` are passed on to the `Runner`.
    """
    threads = settings.threads or torch.get_num_threads()
    settings = replace(settings, threads=threads)
    noted = settings.record() | ({"suite": suite} if suite else {})
    fresh = Results("models", describe(device=device, threads=threads), noted, command)

    def run(pending: list[Job], results: Results) -> int:
        limits: dict[str, Limits] = {}
        if pending and start_peer is None:  # fakes have no floor
            limits = measure_all(device, [job.case.dtype for job in pending], threads)
            measured = {name: found.record() for name, found in limits.items()}
            results.environment["limits"] = results.environment.get("limits", {}) | measured

        def save_rows() -> None:
            add_floors(results.rows, limits)
            save(results, path)

        with Runner(settings, Reporter(console), device=device, start_peer=start_peer) as runner:
            return runner.run(pending, results, save_rows, deadline_seconds=deadline_seconds)

    rows = run_sweep(console, path, fresh, jobs, run, show_models, resume=resume)
    return all(row["status"] == OK for row in rows if tables.is_ours(row))


def show_models(console: Console, results: Results, path: Path) -> None:
    """Print the table of a sweep and draw its picture."""
    console.print(tables.models_table(results))
    for note in tables.notes(results):
        console.print(note, markup=False, highlight=False)
    for line in target_lines(results):
        console.print(line, markup=False, highlight=False)
    picture = path.with_suffix(".png")
    sizes = {(row["model"], row["image_size"]) for row in results.rows}
    several = len(sizes) > len({model for model, _ in sizes})  # which a line across phi has no place for
    draw = bars.plot_bars if several or results.settings.get("suite") else plots.plot_models
    drawn = draw(results, picture)
    files = f"{shown_path(path)}, .csv" + (", .png" if drawn else "")
    console.print(f"written: {files}", markup=False, highlight=False)
