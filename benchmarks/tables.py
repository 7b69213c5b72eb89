"""Tables of a sweep: a line for each case, a column for each peer, the engine over the best of a group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from benchmarks.peers import PEERS
from benchmarks.results import Results

Row = dict[str, object]

#: Stands for every group but this project's.
STOCK = "stock"

#: Ratio columns: heading, and the groups of which the fastest peers are divided, the second by the first.
RATIOS = (
    ("vs eager", "eager", "engine"),
    ("vs tuned", "tuned", "engine"),
    ("vs graph", "graph", "engine"),
    ("vs plain", "plain", "engine"),
    ("vs compiled", "compiled", "engine"),
    ("vs runtime", "runtime", "engine"),
    ("vs best", STOCK, "engine"),
    ("uint8 vs float", "engine", "engine-uint8"),
)

#: Peers above which a table has a column for each group, with its fastest peer, instead of one for each.
MOST_COLUMNS = 8


def cases_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows grouped by case, in the order of a sweep: model, image size, batch, dtype (float32 first)."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["case"], []).append(row)

    def order(key: str) -> tuple:
        row = groups[key][0]
        phi = row.get("phi")
        size = row.get("image_size", 0)
        return (phi is None, phi, row["model"], size, row["batch"], row["dtype"] != "float32", row["dtype"])

    return {key: groups[key] for key in sorted(groups, key=order)}


def labels_of(rows: Iterable[Row]) -> dict[str, str]:
    """Name -> label of every peer that occurs, in the order of the columns, the engine last."""
    labels: dict[str, str] = {}
    for row in rows:
        labels.setdefault(row["peer"], row["label"])
    order = {name: index for index, name in enumerate((*GROUP_ORDER, *PEERS))}
    # A peer that is no more comes last among those of others.
    last = order["engine-uint8"] - 0.5
    return dict(sorted(labels.items(), key=lambda item: order.get(item[0], last)))


def fastest_of_groups(rows: Iterable[Row]) -> list[Row]:
    """A row for every group of every case: its fastest peer's, or its first where none has a time.

    The name of the group stands for the peer, whose label is in the column `winner`.
    """
    chosen: dict[tuple, Row] = {}
    for row in rows:
        key = row["case"], row["group"]
        if key not in chosen or (speed(row) or 0.0) > (speed(chosen[key]) or 0.0):
            chosen[key] = row
    return [
        {
            **row,
            "peer": row["group"],
            "label": GROUP_LABELS.get(row["group"], row["group"]),
            "winner": row["label"],
        }
        for row in chosen.values()
    ]


def shown_rows(rows: Sequence[Row]) -> Sequence[Row]:
    """`rows`, or those of `fastest_of_groups` where there are too many peers for a table or a picture."""
    return fastest_of_groups(rows) if len(labels_of(rows)) > MOST_COLUMNS else rows


SHORT_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

#: Spread of the rounds above which a figure is shown with it.
NOISY_SPREAD = 0.1

#: Order of the groups' columns; the other groups are called like a peer.
GROUP_ORDER = ("eager", "tuned", "graph", "plain")
GROUP_LABELS = {"plain": "torch.compile plain", "engine": "effnet_fast", "engine-uint8": "effnet_fast uint8"}


def ratios_of(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """Those of `RATIOS` whose groups occur in `rows`; the best of all where others than PyTorch's usual forms
    take part.
    """
    groups = {row["group"] for row in rows}
    if groups & {"graph", "runtime"}:
        groups.add(STOCK)
    return [entry for entry in RATIOS if entry[1] in groups and (entry[2] == "engine" or entry[2] in groups)]


def speed(row: Row) -> float | None:
    """Images per second of a row that has a time, else None."""
    return row["images_per_second"] if row["status"] == "ok" else None


def best(rows: Iterable[Row], group: str) -> float | None:
    """Images per second of the fastest peer of `group`, or of all of `STOCK`, among `rows` of one case."""
    speeds = [speed(row) for row in rows if row["group"] == group or (group == STOCK and not is_ours(row))]
    return max((value for value in speeds if value is not None), default=None)


def is_ours(row: Row) -> bool:
    """Whether a row of any kind of result file is this project's."""
    return str(row.get("group")).startswith(("engine", "ours"))


def ratio(rows: Sequence[Row], group: str, ours: str = "engine") -> float | None:
    """Speed of the best peer of `ours` over that of `group` in the case; None where one is missing."""
    ours, theirs = best(rows, ours), best(rows, group)
    return None if ours is None or theirs is None else ours / theirs


def memory_ratio(rows: Sequence[Row]) -> float | None:
    """Activation memory of the engine over that of the most frugal eager peer; None where one is missing."""
    known = [row for row in rows if row.get("activation_mib")]
    ours = [row["activation_mib"] for row in known if row["group"] == "engine"]
    eager = [row["activation_mib"] for row in known if row["group"] == "eager"]
    return ours[0] / min(eager) if ours and eager else None


def speed_text(row: Row | None) -> str:
    """What stands in a peer's column: a rate, or why there is none."""
    if row is None:
        return "-"
    value = speed(row)
    if value is None:
        usage = row.get("error_usage")
        return f"FAIL {usage:.1f}x" if row["status"] == "FAIL" and usage else str(row["status"])
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def ratio_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def models_table(results: Results) -> Table:
    """The table at the end of `python -m benchmarks models`: images per second, ratios, memory."""
    shown = cases_of(shown_rows(results.rows))
    labels = labels_of(row for rows in shown.values() for row in rows)
    ratios = ratios_of(results.rows)
    floors = any("of_floor" in row for row in results.rows)
    of_floor = "of floor: the least time, of arithmetic (a) or memory (m), over its own; " if floors else ""
    table = Table(
        title=f"images/s, {machine_text(results.environment)}",
        caption="vs: effnet_fast over the fastest peer of that kind; memory: its activations over eager's "
        f"least; {of_floor}±: 20th to 80th percentile of rounds, where above {NOISY_SPREAD / 2:.0%}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", no_wrap=True)
    table.add_column("batch", justify="right")
    table.add_column("dtype")
    last = ("memory", *(("of floor",) if floors else ()))
    for heading in (*labels.values(), *(heading for heading, _, _ in ratios), *last):
        # Two lines where there are two words: six peers must fit a terminal.
        table.add_column(re.sub(r" |(?=[._])", "\n", heading), justify="right")
    model = ""
    for key, rows in cases_of(results.rows).items():
        first, by_peer = rows[0], {row["peer"]: row for row in shown[key]}
        if model and model != first["model"]:
            table.add_section()
        model = first["model"]
        table.add_row(
            model_text(first),
            str(first["batch"]) + ("*" if first["note"] else ""),
            SHORT_DTYPES[first["dtype"]],
            *[_styled(by_peer.get(name)) for name in labels],
            *[ratio_text(ratio(rows, group, ours)) for _, group, ours in ratios],
            ratio_text(memory_ratio(rows)),
            *([floor_text(rows)] if floors else []),
        )
    return table


def floor_text(rows: Iterable[Row]) -> str:
    """Share of the floor that the engine reaches, and what the floor is made of."""
    found = [row for row in rows if row["group"] == "engine" and "of_floor" in row]
    return f"{found[0]['of_floor']:.0%} {found[0]['floor_bound'][0]}" if found else "-"


def machine_text(environment: dict[str, object]) -> str:
    """What the figures were measured on."""
    if environment.get("device") == "cuda":
        return str(environment["gpu"])
    return f"{environment['cpu']}, {environment['threads']} threads"


def place_text(environment: dict[str, object]) -> str:
    """The same with a CPU's instruction set, which its figures are nothing without."""
    if environment.get("device") == "cuda":
        return machine_text(environment)
    return f"{environment['cpu']} ({environment['isa']}), {environment['threads']} threads"


def model_text(row: Row) -> str:
    """Short for a variant of the sweep over phi ("B0 @224"), the whole name for another model."""
    name = str(row["model"])
    short = name
    if row["phi"] is not None:
        of_formula = "_phi" in name
        short = f"phi {row['phi']:g}" if of_formula else name.removeprefix("efficientnet_").upper()
    return f"{short} @{row['image_size']}"


def _styled(row: Row | None) -> str:
    text = speed_text(row)
    if row is None:
        return text
    if row["status"] == "ok":
        noise = f" ±{50 * row['spread']:.0f}%" if row["spread"] > NOISY_SPREAD else ""
        winner = f" {row['winner']}" if row.get("winner", row["label"]) != row["label"] else ""
        return f"{text}[dim]{noise}{winner}[/dim]"
    return f"[bold red]{text}[/bold red]" if row["status"] in ("FAIL", "error") else f"[dim]{text}[/dim]"


def notes(results: Results) -> list[str]:
    """Sentences to print below the table: limited batches, and why a peer has no time."""
    found: dict[str, None] = {}
    for rows in cases_of(results.rows).values():
        if rows[0]["note"]:
            found[f"* {rows[0]['model']}: {rows[0]['note']} (a call of it takes seconds)"] = None
        for row in rows:
            if row.get("alone"):
                found[
                    f"{row['label']}, {row['case']}: measured alone, for want of memory beside the others"
                ] = None
            if row["status"] == "unavailable":  # one reason for many cases
                found[f"{row['label']}: unavailable: {row['reason']}"] = None
            elif row["status"] != "ok":
                found[f"{row['label']}, {row['case']}: {row['status']}: {row['reason']}"] = None
    return list(found)
