"""The measured tables of the README and of docs/kernels.md, made from result files between two markers; never
typed.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.bars import plot_bars
from benchmarks.fuse_tables import markdown as fuse_markdown
from benchmarks.ladder_plots import plot_ladder
from benchmarks.ladder_tables import markdown as ladder_markdown
from benchmarks.plots import plot_models
from benchmarks.results import ResultError, Results, load
from benchmarks.suites import SUITES
from benchmarks.tables import (
    cases_of,
    labels_of,
    memory_ratio,
    model_text,
    place_text,
    ratio,
    ratio_text,
    ratios_of,
    shown_rows,
    speed_text,
)

BEGIN = "<!-- benchmarks: begin (made by `python -m benchmarks readme`) -->"
END = "<!-- benchmarks: end -->"

FUSE_BEGIN = "<!-- fuse: begin (made by `python -m benchmarks readme`) -->"
FUSE_END = "<!-- fuse: end -->"
NO_FUSE = "Nothing has been measured and committed yet; `python -m benchmarks fuse --full` measures it."

LADDERS_BEGIN = "<!-- ladders: begin (made by `python -m benchmarks readme`) -->"
LADDERS_END = "<!-- ladders: end -->"
NO_LADDERS = (
    "No ladder has been measured and committed yet; `python -m benchmarks ops --ladder --full` measures one."
)

RATIOS_ON_CPU = (
    "Ratios: effnet_fast over the fastest eager peer; over eager PyTorch with folded batch norms and an "
    "allocator that keeps its memory (tuned); over `torch.compile` with frozen weights as it comes (plain), "
    "and with that allocator (compiled)."
)
RUNTIMES_ON_CPU = " vs runtime: over the fastest of ONNX Runtime and OpenVINO; vs best: over the best of all."
RATIOS_ON_GPU = (
    "Ratios: effnet_fast over the fastest eager peer; over the fastest eager peer captured as a CUDA graph; "
    "over the fastest mode of `torch.compile` with frozen weights; over the best of all of these; "
    "effnet_fast from uint8 pixels over itself from normalised floats."
)


def markdown_table(results: Results) -> str:
    """The table, and below it the machine, versions, commit and command that it comes from."""
    shown, ratios = cases_of(shown_rows(results.rows)), ratios_of(results.rows)
    labels = labels_of(row for rows in shown.values() for row in rows)
    headings = ["model", "batch", "dtype", *labels.values(), *(heading for heading, _, _ in ratios), "memory"]
    lines = [
        "| " + " | ".join(headings) + " |",
        "|---|--:|---|" + "--:|" * (len(headings) - 3),
    ]
    limited = False
    for key, rows in cases_of(results.rows).items():
        first, by_peer = rows[0], {row["peer"]: row for row in shown[key]}
        limited = limited or bool(first["note"])
        speeds = [speed_text(by_peer.get(name)) for name in labels]
        if by_peer.get("engine", {}).get("status") == "ok":
            speeds[list(labels).index("engine")] = f"**{speed_text(by_peer['engine'])}**"
        cells = [
            model_text(first),
            f"{first['batch']}{'*' if first['note'] else ''}",
            first["dtype"],
            *speeds,
            *(ratio_text(ratio(rows, group, ours)) for _, group, ours in ratios),
            ratio_text(memory_ratio(rows)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    environment = results.environment
    on_gpu = environment.get("device") == "cuda"
    measured = RATIOS_ON_GPU if on_gpu else RATIOS_ON_CPU
    if any(group == "runtime" for _, group, _ in ratios):
        measured += RUNTIMES_ON_CPU
    lines += [
        "",
        f"Images per second, {place_text(environment)}, torch {environment['libraries']['torch']}, "
        f"{environment['date']}, commit {environment['commit'] or 'unknown'}; `{results.command}`. "
        "Medians of alternating rounds, each peer checked against float64 logits first. "
        f"{measured} Memory: peak of activations over the least of the "
        "eager peers.",
    ]
    if limited:
        lines.append("\\* batch limited: one call takes seconds.")
    return "\n".join(lines)


def update_readme(text: str, table: str) -> str:
    """`text` with `table` between the markers; ResultError without exactly one pair of them."""
    return _between(text, BEGIN, END, table, "the README")


def update_fuse(text: str, table: str) -> str:
    """`text` of the README with the support matrix between its markers; ResultError as above."""
    return _between(text, FUSE_BEGIN, FUSE_END, table, "the README")


def update_ladders(text: str, tables: str) -> str:
    """`text` of docs/kernels.md with `tables` between its markers; ResultError as above."""
    return _between(text, LADDERS_BEGIN, LADDERS_END, tables, "docs/kernels.md")


def _between(text: str, begin: str, end: str, table: str, what: str) -> str:
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ResultError(f"{what} needs exactly one line {begin!r} and after it one line {end!r}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def committed_ladders(folder: Path) -> str:
    """The tables of all committed ladders under `folder`, or a sentence that there is none."""
    paths = [path for path in sorted(folder.glob("*/ladder-*.json")) if path.parent.name != "local"]
    return "\n\n".join(ladder_markdown(load(path, kind="ladder")) for path in paths) or NO_LADDERS


def committed_fuse(folder: Path) -> str:
    """The support matrices of all committed machines under `folder`, or a sentence that there is none."""
    paths = [path for path in sorted(folder.glob("*/fuse.json")) if path.parent.name != "local"]
    return "\n\n".join(fuse_markdown(load(path, kind="fuse")) for path in paths) or NO_FUSE


def draw_pictures(folder: Path) -> list[Path]:
    """Draw the picture beside every committed sweep, suite and ladder under `folder`; which were drawn."""
    drawn = []
    for path in sorted(folder.glob("*/*.json")):
        results = None if path.parent.name == "local" else load(path)
        if results is None or results.kind not in ("models", "ladder"):
            continue
        picture = path.with_suffix(".png")
        draw = plot_ladder if results.kind == "ladder" else plot_bars
        if results.kind == "models" and not results.settings.get("suite"):
            draw = plot_models
        if draw(results, picture):
            drawn.append(picture)
    return drawn


def committed_results(folder: Path) -> list[Path]:
    """The committed result files of a suite under `folder`, the machine with the most cases first; without
    any, the only models.json. ResultError when there is none, or several of those.
    """
    suites = [path for suite in SUITES for path in sorted(folder.glob(f"*/{suite}.json"))]
    suites = [path for path in suites if path.parent.name != "local"]
    if suites:
        return sorted(suites, key=lambda path: -len(load(path, kind="models").rows))
    found = [path for path in sorted(folder.glob("*/models.json")) if path.parent.name != "local"]
    if len(found) == 1:
        return found
    folders = ", ".join(path.parent.name for path in found) or "none"
    raise ResultError(f"{folder}: needs one folder with a models.json, found {folders}; name the file")


def committed_tables(folder: Path) -> str:
    """The table of each of them."""
    return "\n\n".join(markdown_table(load(path, kind="models")) for path in committed_results(folder))
