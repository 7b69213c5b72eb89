"""The page: sections of exhibits, one for each result file, as one HTML text with all it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.report import drawing
from benchmarks.report.colours import FIXED, style_sheet
from benchmarks.report.drawing import Drawn
from benchmarks.report.exhibits import Cell, Exhibit, Table, gate_text, number, status_cell
from benchmarks.report.files import Source
from benchmarks.report.kinds import exhibits_of, heading_of, order_of
from benchmarks.results import ResultError, Results, columns_of
from benchmarks.rows import OK
from benchmarks.tables import Row, machine_text, place_text

TEMPLATES = Path(__file__).resolve().parent

#: What only a time, or a peak of memory, can say: columns that a row without one leaves empty, whatever the
#: file has there.
_MEASURED = re.compile(
    r"(median|p\d+|best)_\w+|(\w*images|gmacs|gb)_per_second|milliseconds|spread|rounds|calls|ratio|of_\w+|copy_share|activation_\w+"
)

#: Columns that say the same again, or nothing to a reader.
_LEFT_OUT = ("peer", "group", "details", "note")


@dataclass(frozen=True)
class Shown:
    """An exhibit with its panels drawn and its legend as HTML."""

    exhibit: Exhibit
    panels: Sequence[Drawn]
    legend: Sequence[tuple[str, Markup]]


@dataclass(frozen=True)
class Section:
    """What the page says of one result file."""

    id: str
    heading: str
    source: Source
    exhibits: Sequence[Shown]
    place: str
    made: Sequence[tuple[str, str]]
    gate: str
    everything: Table

    @property
    def order(self) -> int:
        """Of its kind on the page."""
        return order_of(self.source.results.kind)

    @property
    def panels(self) -> int:
        return sum(len(shown.exhibit.panels) for shown in self.exhibits)


def build(sources: Sequence[Source]) -> tuple[str, dict[str, Drawn]]:
    """The page of `sources`, and its panels by the names of their files.

    Raises: ResultError for rows that lack what their kind has.
    """
    colours: set[str] = set(FIXED)
    sections = [
        _section(source, index, colours)
        for index, source in enumerate(
            sorted(sources, key=lambda one: (order_of(one.results.kind), one.name))
        )
    ]
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    html = templates.get_template("page.html.j2").render(
        sections=sections,
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        colours=Markup(style_sheet(colours)),
        can_draw=drawing.can_draw(),
        Cell=Cell,
    )
    panels = {
        f"{section.source.stem}-{panel.name}": drawn
        for section in sections
        for shown in section.exhibits
        for panel, drawn in zip(shown.exhibit.panels, shown.panels, strict=bool(shown.panels))
    }
    return html, panels


def _section(source: Source, index: int, colours: set[str]) -> Section:
    results = source.results
    try:
        exhibits = exhibits_of(results) if results.rows else []
        shown = [_shown(exhibit, f"s{index}e{place}", colours) for place, exhibit in enumerate(exhibits)]
        return Section(
            f"s{index}",
            heading_of(results.kind),
            source,
            shown,
            _place(results),
            _made(source),
            gate_text(results.rows),
            _everything(results.rows),
        )
    except KeyError as error:
        raise ResultError(
            f"{source.path}: a row of kind {results.kind!r} lacks {error}; measure it again: "
            f"{results.command}"
        ) from error


def _shown(exhibit: Exhibit, name: str, colours: set[str]) -> Shown:
    if not drawing.can_draw():
        return Shown(exhibit, [], [])
    panels = [drawing.draw(panel, f"{name}p{place}") for place, panel in enumerate(exhibit.panels)]
    keys = []
    for place, (label, style) in enumerate(exhibit.legend):
        svg, used = drawing.draw_key(style, f"{name}k{place}")
        keys.append((label, Markup(svg)))
        colours |= used
    for panel in panels:
        colours |= panel.colours
    return Shown(exhibit, panels, keys)


def _place(results: Results) -> str:
    """The environment in one line."""
    environment = results.environment
    commit = environment.get("commit") or "unknown"
    torch = environment["libraries"]["torch"]
    return f"{place_text(environment)}, torch {torch}, commit {commit}, {environment['date']}"


def _made(source: Source) -> list[tuple[str, str]]:
    """(what, text) of the command and the environment."""
    results, environment = source.results, source.results.environment
    software = ", ".join(f"{name} {version}" for name, version in environment["libraries"].items() if version)
    found = [
        ("command", results.command),
        ("file", source.name),
        ("machine", machine_text(environment)),
        ("instruction set", environment.get("isa")),
        ("threads", environment["threads"]),
        ("software", software),
        ("commit", environment.get("commit") or "unknown"),
        ("date", environment["date"]),
        ("load of each core before", environment.get("load_per_core")),
        ("settings", ", ".join(f"{name} {_setting(value)}" for name, value in results.settings.items())),
    ]
    found += [
        ("environment variables", ", ".join(f"{k}={v}" for k, v in environment.get("overrides", {}).items()))
    ]
    return [(what, str(text)) for what, text in found if text not in (None, "")]


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_setting(inner)}" for name, inner in value.items()) + ")"
    return number(value) if value is not None else "unknown"


def _everything(rows: Sequence[Row]) -> Table:
    """Every row of the file with every column that says something."""
    columns = [
        name
        for name in columns_of(rows)
        if name not in _LEFT_OUT and any(row.get(name) not in (None, "") for row in rows)
    ]
    words = [name for name in columns if any(isinstance(row.get(name), str) for row in rows)]
    figures = [name for name in columns if name not in words]
    lines = [[_cell(row, name) for name in (*words, *figures)] for row in rows]
    return Table([*words, *figures], lines, left=len(words))


def _cell(row: Row, name: str) -> str | Cell:
    has_time = row.get("status", OK) == OK
    if name == "status":
        return str(row.get(name, "")) if has_time else status_cell(row)
    if not has_time and _MEASURED.fullmatch(name):
        return ""
    value = row.get(name)
    return "" if value is None else number(value)
