"""The command line of the benchmark suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console

import effnet_fast
from benchmarks import operator_tables, operators, plots, profile, readme, tables
from benchmarks import photos as photographs
from benchmarks.cases import DTYPES, PHIS, describe_model, parse_dtypes, parse_numbers, sweep
from benchmarks.layers import layer_cases
from benchmarks.peers import PEERS, parse_peers
from benchmarks.progress import Reporter
from benchmarks.resources.command import resources
from benchmarks.results import ResultError, Results, load, save
from benchmarks.runner import OK, QUICK, THOROUGH, Job, Runner, Settings
from benchmarks.subject import distinct_images, rows_of_batch, seeded_model
from effnet_fast.images import ImageError
from effnet_fast.measure import describe, device_slug, differences, load_per_core

RESULTS = Path(__file__).resolve().parent / "results"
LOCAL = RESULTS / "local"
README = RESULTS.parent.parent / "README.md"

#: The default sweep leaves out larger variants to end within five minutes on two cores, and gives a peer that
#: is slow to start one variant.
DEFAULT_PHIS = "0-2"
SLOW_START_PHI = 0

#: After this no further case of the default sweep is begun: on a busy machine a part is better than half an
#: hour.
DEADLINE_SECONDS = 290.0

#: Load of each core above which a warning precedes the sweep.
BUSY_LOAD = 0.5

FOLDER = click.Path(path_type=Path, file_okay=False)
SECONDS = click.FloatRange(0)

INTERRUPTED = 130  # the exit status of a shell for a command that Ctrl-C ended


def _console(*, stderr: bool = False) -> Console:
    # Without a terminal rich assumes 80 columns, which breaks every line of the tables in a log.
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=160)


def _usage(parse: Callable, *arguments: object, **options: object):
    """`parse(...)` with its ValueError as a usage error (exit status 2)."""
    try:
        return parse(*arguments, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _refuse(error: Exception) -> click.ClickException:
    refusal = click.ClickException(str(error))
    refusal.exit_code = 2
    return refusal


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Compare effnet_fast with stock PyTorch. Without a command: photos, then models."""
    if context.invoked_subcommand is None:
        agreed = run_photos(LOCAL)
        served = run_models(_console(), LOCAL, _default_jobs(), QUICK, deadline_seconds=DEADLINE_SECONDS)
        context.exit(0 if agreed and served else 1)


@main.command()
@click.option("--out", type=FOLDER, default=LOCAL, help="Folder of the result files.")
def photos(out: Path) -> None:
    """Classify real photographs with real weights, stock PyTorch beside effnet_fast.

    Exit status 1 when the float32 top-5 differ anywhere, or the logits break the error budget.
    """
    if not run_photos(out):
        raise SystemExit(1)


def run_photos(out: Path) -> bool:
    """Part one of the main job; True when both agree."""
    console = _console()
    try:
        paths = photographs.find_photographs()
        with console.status("photographs") as status:
            comparisons = photographs.compare(
                paths, photographs.COMPARED_DTYPES, lambda text: status.update(f"photographs: {text}")
            )
        results = Results("photos", describe(), {"rounds": photographs.ROUNDS}, "python -m benchmarks photos")
        results.rows = photographs.rows(paths, comparisons)
        _check_replaceable(out / "photos.json", "photos")
        save(results, out / "photos.json")
    except (photographs.PhotographsMissing, FileNotFoundError, ImageError, ResultError) as error:
        raise _refuse(error) from error
    console.print(photographs.guesses_table(paths, comparisons[0]))
    console.print(photographs.speed_table(len(paths), comparisons))
    agreed = all(photographs.agrees(comparison) for comparison in comparisons)
    console.print(
        "stock PyTorch and effnet_fast agree on every photograph (float32: same top-5 in the same order)"
        if agreed
        else "[bold red]stock PyTorch and effnet_fast disagree[/bold red]",
        highlight=False,
    )
    console.print(f"written: {_shown(out / 'photos.json')}, .csv\n", markup=False, highlight=False)
    return agreed


@main.command()
@click.option("--phi", help="Variants, e.g. 0-7 or 0,4.  [default: 0-2; with --full 0-7]")
@click.option(
    "--model", "model_names", multiple=True, help="Any model by name, instead of --phi; repeatable."
)
@click.option("--batch", default="1,16", show_default=True, help="Images per call.")
@click.option("--dtype", default="float32,bfloat16", show_default=True)
@click.option("--peers", help=f"all, or some of {', '.join(PEERS)}.  [default: all, compiled for B0 alone]")
@click.option("--full", is_flag=True, help="Every variant and peer, into results/<device>/; resumes.")
@click.option(
    "--resume", is_flag=True, help="Keep the finished cases of the result file, measure the others."
)
@click.option("--fresh", is_flag=True, help="With --full: measure everything anew, replace the file.")
@click.option("--out", type=FOLDER, help="Folder of the result files.")
@click.option("--rounds", type=click.IntRange(3), help="[default: 5; with --full 7]")
@click.option("--min-seconds", type=SECONDS, help="Length of one sample.  [default: 0.2; with --full 0.25]")
@click.option("--budget", type=SECONDS, help="Seconds of timing per case.  [default: 12; with --full 40]")
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
def models(
    phi: str | None,
    model_names: tuple[str, ...],
    batch: str,
    dtype: str,
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
    if phi is not None and model_names:
        raise click.UsageError("--phi and --model exclude each other")
    asked_phi = phi if phi is not None else (f"{PHIS[0]}-{PHIS[-1]}" if full else DEFAULT_PHIS)
    names = list(model_names) or [
        f"efficientnet_b{index}" for index in _usage(parse_numbers, asked_phi, allowed=PHIS, name="--phi")
    ]
    cases = _usage(sweep, names, _usage(parse_numbers, batch, name="--batch"), _usage(parse_dtypes, dtype))
    chosen = _usage(parse_peers, peers) if peers else list(PEERS)
    narrowed = not (full or peers or model_names)
    jobs = [Job(case, tuple(_peers_of(case, chosen) if narrowed else chosen)) for case in cases]
    given = {"rounds": rounds, "min_seconds": min_seconds, "budget_seconds": budget}
    settings = replace(
        THOROUGH if full else QUICK,
        threads=threads,
        **{name: value for name, value in given.items() if value is not None},
    )
    options = [
        *(f"--model {name}" for name in model_names),
        "" if model_names or phi is None else f"--phi {phi}",
        "" if batch == "1,16" else f"--batch {batch}",
        "" if dtype == "float32,bfloat16" else f"--dtype {dtype}",
        f"--peers {peers}" if peers else "",
        "--full" if full else "",
    ]
    command = " ".join(["python -m benchmarks models", *filter(None, options)])
    folder = out or (RESULTS / device_slug() if full else LOCAL)
    served = run_models(
        _console(), folder, jobs, settings, resume=(full or resume) and not fresh, command=command
    )
    if not served:
        raise SystemExit(1)


def _peers_of(case, names: list[str]) -> list[str]:
    slow_welcome = case.model == f"efficientnet_b{SLOW_START_PHI}"
    return [name for name in names if slow_welcome or not PEERS[name].slow_start]


def _default_jobs() -> list[Job]:
    cases = sweep([f"efficientnet_b{index}" for index in range(3)], [1, 16], ["float32", "bfloat16"])
    return [Job(case, tuple(_peers_of(case, list(PEERS)))) for case in cases]


def run_models(
    console: Console,
    folder: Path,
    jobs: list[Job],
    settings: Settings,
    *,
    resume: bool = False,
    command: str = "python -m benchmarks models",
    deadline_seconds: float | None = None,
    start_peer: Callable | None = None,
) -> bool:
    """Part two of the main job; True when the engine has a time in every case that was run.

    `deadline_seconds` and `start_peer` are passed on to the `Runner`.
    """
    threads = settings.threads or torch.get_num_threads()
    settings = replace(settings, threads=threads)
    path = folder / "models.json"
    environment = describe(threads=threads)
    fresh = Results("models", environment, settings.record(), command)

    def run(pending: list[Job], results: Results) -> int:
        with Runner(settings, Reporter(console), start_peer=start_peer) as runner:
            return runner.run(
                pending, results, lambda: save(results, path), deadline_seconds=deadline_seconds
            )

    rows = _sweep(console, path, fresh, jobs, run, _show, resume=resume)
    return all(row["status"] == OK for row in rows if row["group"] == "engine")


def _sweep(
    console: Console,
    path: Path,
    fresh: Results,
    jobs: list,
    run: Callable[[list, Results], int],
    show: Callable[[Console, Results, Path], None],
    *,
    resume: bool,
) -> list[dict[str, object]]:
    """`run` what is not in the result file yet, `show` all of it, and return the rows of `jobs`.

    `run` saves after every case, and returns how many it left out for want of time.
    """
    try:
        results = _open_results(path, fresh, resume=resume)
    except ResultError as error:
        raise _refuse(error) from error
    pending = [job for job in jobs if not _finished(results, job)]
    if len(pending) < len(jobs):
        console.print(
            f"{len(jobs) - len(pending)} of {len(jobs)} cases are in {_shown(path)} already", highlight=False
        )
    if pending:
        _warn_of_load(console)
    interrupted = False
    try:
        left_out = run(pending, results)
        if left_out:
            console.print(
                f"{left_out} cases left out, for the time is up; to go on: {fresh.command} --resume"
            )
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted; the finished cases are kept (continue with --resume)")
    if results.rows:
        show(console, results, path)
    if interrupted:
        raise SystemExit(INTERRUPTED)
    keys = {job.case.key for job in jobs}
    return [row for row in results.rows if row["case"] in keys]


def _warn_of_load(console: Console) -> None:
    load = load_per_core()
    if load > BUSY_LOAD:
        console.print(
            f"this machine is busy (load {load:.1f} for each core): ratios are noisy, times too long",
            style="yellow",
            highlight=False,
        )


def _show(console: Console, results: Results, path: Path) -> None:
    console.print(tables.models_table(results))
    for note in tables.notes(results):
        console.print(note, markup=False, highlight=False)
    picture = path.with_suffix(".png")
    drawn = plots.plot_models(results, picture)
    files = f"{_shown(path)}, .csv" + (", .png" if drawn else "")
    console.print(f"written: {files}", markup=False, highlight=False)


def _finished(results: Results, job) -> bool:
    done = {row["peer"] for row in results.of_case(job.case.key) if row["status"] != "error"}
    return done >= set(job.peers)


def _open_results(path: Path, fresh: Results, *, resume: bool) -> Results:
    """The file's results when a run is resumed, else the empty `fresh` ones.

    A file that cannot be read is an error either way: it may be the only copy of something.
    """
    if not path.exists():
        return fresh
    old = load(path, kind=fresh.kind)
    if not resume:
        return fresh
    reasons = differences(old.environment, fresh.environment)
    if old.settings != fresh.settings:
        reasons.append(f"settings: {old.settings} there, {fresh.settings} here")
    if reasons:
        raise ResultError(
            f"{_shown(path)} cannot be resumed: {'; '.join(reasons)}. Use --fresh or another --out"
        )
    old.command = fresh.command
    return old


def _check_replaceable(path: Path, kind: str) -> None:
    if path.exists():
        load(path, kind=kind)


def _shown(path: Path) -> str:
    """`path` as seen from the current folder where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@main.command("ops")
@click.option("--model", "models_", multiple=True, help="Repeatable.  [default: efficientnet_b0 and _b4]")
@click.option("--batch", help="Images per call.  [default: 1,32,256; on a CPU 1,16]")
@click.option("--dtype", help="[default: float16; on a CPU float32]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]")
@click.option("--backend", help="Of this project, e.g. triton or cuda,triton.  [default: all that serve]")
@click.option("--operator", "only", multiple=True, help="Some operators alone; repeatable.")
@click.option("--compiled/--no-compiled", default=True, help="Compare with torch.compile, too.")
@click.option("--resume", is_flag=True, help="Keep the finished layers of the result file.")
@click.option("--limit-minutes", type=click.FloatRange(0), help="Begin no further layer after this.")
@click.option("--rounds", type=click.IntRange(3), default=5, show_default=True)
@click.option("--min-seconds", type=SECONDS, default=0.05, show_default=True, help="Length of one sample.")
@click.option("--out", type=FOLDER, default=LOCAL, help="Folder of the result files.")
def ops_command(
    models_: tuple[str, ...],
    batch: str | None,
    dtype: str | None,
    device: str | None,
    backend: str | None,
    only: tuple[str, ...],
    compiled: bool,
    resume: bool,
    limit_minutes: float | None,
    rounds: int,
    min_seconds: float,
    out: Path,
) -> None:
    """Time every distinct layer by itself: checked, then against stock PyTorch and the copy bandwidth.

    Exit status 1 when a layer fails its check or breaks off; 2 for a wrong option or an unusable result file.
    Ctrl-C keeps every finished layer.
    """
    has_gpu = torch.cuda.is_available()
    device = device or ("cuda" if has_gpu else "cpu")
    if device == "cuda" and not has_gpu:
        raise click.UsageError("--device cuda: this machine has no GPU that PyTorch can use")
    names = models_ or ("efficientnet_b0", "efficientnet_b4")
    batch = batch or ("1,32,256" if device == "cuda" else "1,16")
    dtype = dtype or ("float16" if device == "cuda" else "float32")
    batches, dtypes = _usage(parse_numbers, batch, name="--batch"), _usage(parse_dtypes, dtype)
    ours = (
        _usage(operators.parse_backends, backend, device) if backend else operators.available_backends(device)
    )
    for name in names:
        _usage(describe_model, name)
    cases = layer_cases(names, batches, dtypes, only)
    if not cases:
        raise click.UsageError(f"--operator: no layer of {', '.join(names)} is computed by {', '.join(only)}")
    jobs = [
        operators.Job(case, (*ours, *operators.stock_peers(case.layer.operator, device, compiled=compiled)))
        for case in cases
    ]
    settings = replace(QUICK, rounds=rounds, min_seconds=min_seconds, threads=torch.get_num_threads())
    options = [
        *(f"--model {name}" for name in names), f"--batch {batch}", f"--dtype {dtype}", f"--device {device}",
        f"--backend {backend}" if backend else "", *(f"--operator {name}" for name in only),
        "" if compiled else "--no-compiled",
    ]  # fmt: skip
    fresh = Results(
        "operators",
        describe(device=device),
        settings.record(),
        " ".join(["python -m benchmarks ops", *filter(None, options)]),
    )
    console, path = _console(), out / f"operators-{device}.json"
    reporter = Reporter(console, title=operators.case_title, text=operators.rows_text)

    def run(pending: list[operators.Job], results: Results) -> int:
        if not pending:
            return 0
        console.print(f"{len(pending)} layers to measure; first, how fast a plain copy is", highlight=False)
        runner = operators.OperatorRunner(settings, reporter, device, operators.copy_bandwidth(device))
        limit = None if limit_minutes is None else 60 * limit_minutes
        return runner.run(pending, results, lambda: save(results, path), deadline_seconds=limit)

    rows = _sweep(console, path, fresh, jobs, run, _show_operators, resume=resume)
    if any(row["status"] != OK for row in rows if row["group"] == "ours"):
        raise SystemExit(1)


def _show_operators(console: Console, results: Results, path: Path) -> None:
    console.print(operator_tables.operators_table(results))
    for note in operator_tables.notes(results):
        console.print(note, markup=False, highlight=False)
    console.print(f"written: {_shown(path)}, .csv", markup=False, highlight=False)


@main.command("profile")
@click.option("--model", "name", default="efficientnet_b0", show_default=True)
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1))
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(list(DTYPES)))
@click.option("--repeats", default=15, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=0, type=click.IntRange(0), help="0: as many as torch takes.")
@click.option("--out", type=FOLDER, default=LOCAL, help="Folder of the result files.")
def profile_command(name: str, batch: int, dtype: str, repeats: int, threads: int, out: Path) -> None:
    """Show where effnet_fast's time goes: every step of the engine's plan, and their sums by kind."""
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
        steps = profile.profile_engine(engine, images, repeats=repeats)
        results = Results("profile", describe(), {"repeats": repeats}, command, [])
        results.rows = profile.rows(name, dtype, batch, steps)
        _check_replaceable(path, "profile")
        save(results, path)
    except (ValueError, profile.ProfileError) as error:
        raise _refuse(error) from error
    console = _console()
    console.print(profile.steps_table(steps))
    console.print(profile.groups_table(f"{name} @{size}, batch {batch}, {dtype}: where the time goes", steps))
    console.print(f"written: {_shown(path)}, .csv", markup=False, highlight=False)


@main.command("readme")
@click.argument("results", required=False, type=click.Path(path_type=Path))
@click.option("--readme", "target", type=click.Path(path_type=Path, dir_okay=False), default=README)
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 when the README is out of date.")
def readme_command(results: Path | None, target: Path, check: bool) -> None:
    """Write the measured table of the README from a result file (by default the committed one)."""
    try:
        table = readme.markdown_table(load(results or readme.committed_results(RESULTS), kind="models"))
        old = target.read_text(encoding="utf-8")
        new = readme.update_readme(old, table)
    except (ResultError, OSError) as error:
        raise _refuse(error) from error
    if check:
        if new != old:
            raise click.ClickException(f"{_shown(target)} is out of date: run python -m benchmarks readme")
    elif new != old:
        target.write_text(new, encoding="utf-8")


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
def show(results: Path) -> None:
    """Print the table of a result file and draw its picture anew."""
    try:
        found = load(results, kind="models")
    except ResultError as error:
        raise _refuse(error) from error
    _show(_console(), found, results)


main.add_command(resources)
