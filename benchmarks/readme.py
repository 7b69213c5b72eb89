"""The measured table of the README, made from a result file between two markers; never typed."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import ResultError, Results
from benchmarks.suites import SUITES
from benchmarks.tables import (
    cases_of,
    labels_of,
    machine_text,
    memory_ratio,
    model_text,
    ratio,
    ratio_text,
    ratios_of,
    shown_rows,
    speed_text,
)

BEGIN = "<!-- benchmarks: begin (made by `python -m benchmarks readme`) -->"
END = "<!-- benchmarks: end -->"

RATIOS_ON_CPU = (
    "Ratios: effnet_fast over the fastest eager peer; over eager PyTorch with folded batch norms and an "
    "allocator that keeps its memory (tuned); over `torch.compile` with frozen weights and that allocator."
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
    machine = (
        machine_text(environment)
        if on_gpu
        else (f"{environment['cpu']} ({environment['isa']}), {environment['threads']} threads")
    )
    lines += [
        "",
        f"Images per second, {machine}, torch {environment['libraries']['torch']}, {environment['date']}, "
        f"commit {environment['commit'] or 'unknown'}; `{results.command}`. Medians of alternating rounds, "
        "each peer checked against float64 logits first. "
        f"{measured} Memory: peak of activations over the least of the "
        "eager peers.",
    ]
    if limited:
        lines.append("\\* batch limited: one call takes seconds.")
    return "\n".join(lines)


def update_readme(text: str, table: str) -> str:
    """`text` with `table` between the markers; ResultError without exactly one pair of them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ResultError(f"the README needs exactly one line {BEGIN!r} and after it one line {END!r}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def committed_results(folder: Path) -> Path:
    """The only committed result file of a suite under `folder`, else the only models.json; ResultError when
    there is none or more than one.
    """
    for names in ([f"{suite}.json" for suite in SUITES], ["models.json"]):
        found = [path for name in names for path in sorted(folder.glob(f"*/{name}"))]
        found = [path for path in found if path.parent.name != "local"]
        if len(found) == 1:
            return found[0]
        if found:
            break
    folders = ", ".join(path.parent.name for path in found) or "none"
    raise ResultError(f"{folder}: needs one folder with a models.json, found {folders}; name the file")
