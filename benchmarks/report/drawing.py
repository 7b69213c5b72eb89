"""Panels as SVG for the page, as SVG files that follow the reader's theme, and as PNG files.

A panel is as wide as a phone: the page puts one, two or three of them beside each other.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from benchmarks.report.colours import GRID, GROUND, INK, MUTED, colours_of, style_sheet, with_variables
from benchmarks.report.exhibits import Panel, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches. 9 points of text are then about 10 pixels on a phone of 390, and 11 on a wide screen.
WIDTH = 4.7

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

#: Of texts that lines may cross.
BEHIND_TEXT = {"facecolor": GROUND, "edgecolor": "none", "pad": 0.6}

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and is small
    "text.parse_math": False,  # a dollar sign in a result file is one
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
}


@dataclass(frozen=True)
class Drawn:
    """A panel three times: `inline` for the page, whose style sheet must set `colours`, and as two files."""

    name: str
    inline: str
    colours: frozenset[str]
    svg: str
    png: bytes


def can_draw() -> bool:
    """Whether matplotlib is there; a page without it has its tables."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(panel: Panel, name: str) -> Drawn:
    """Draw `panel`. `name` makes the ids of its parts unlike those of any other on the page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, panel.height), layout="constrained")
        axes = figure.add_subplot()
        texts = panel.draw(axes) or {}
        axes.set_title(panel.title)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160, facecolor=GROUND)
        raw = _svg(figure)
    label = f'role="img" aria-label="{escape(panel.title)}"'
    raw = _titled(_unique(raw, name), texts).replace("<svg ", f"<svg {label} ", 1)
    colours = colours_of(raw)
    variables = with_variables(raw)
    ground = f"<style>{style_sheet(colours | {GROUND})}svg{{background:var(--c{GROUND[1:]})}}</style>"
    alone = re.sub(r"(<svg [^>]*>)", rf"\1{ground}", variables, count=1)
    return Drawn(name, variables, frozenset(colours), f'<?xml version="1.0"?>\n{alone}\n', picture.getvalue())


def draw_key(style: Style, name: str) -> tuple[str, set[str]]:
    """The sign of a series in the legend, and its colours."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(0.36, 0.16))
        if style.dash:
            line = Line2D([0.08, 0.92], [0.5, 0.5], color=style.colour, linestyle=style.dash, linewidth=1.6)
            figure.add_artist(line)
        inside = style.colour if style.filled else "none"
        sign = Line2D([0.5], [0.5], linestyle="", marker=style.marker, markersize=6.5, color=style.colour)
        sign.set_markerfacecolor(inside)
        figure.add_artist(sign)
        raw = _unique(_svg(figure), name).replace("<svg ", '<svg aria-hidden="true" ', 1)
    return with_variables(raw), colours_of(raw)


def _svg(figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for needless in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style [^>]*>.*?</style>"):
        text = re.sub(needless, "", text, flags=re.DOTALL)
    # The size is the page's to choose; the view box keeps the shape.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    text = f"{head}>{rest}".replace("'DejaVu Sans'", FONTS).replace(" xlink:href=", " href=")
    return re.sub(r">\s+<", "><", text).strip()


def _unique(svg: str, name: str) -> str:
    """`svg` with ids, and what refers to them, that begin with `name`."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'\bhref="#', f'href="#{name}-', svg)
    return svg.replace("url(#", f"url(#{name}-")


def _titled(svg: str, texts: dict[str, str]) -> str:
    """`svg` with a title, which a browser shows beside the pointer, in every group that `texts` names."""

    def add(found: re.Match[str]) -> str:
        key = next((key for key in texts if found[1].endswith(f"-{key}")), None)
        return found[0] if key is None else f"{found[0]}<title>{escape(texts[key])}</title>"

    return re.sub(r'<g id="([^"]*)">', add, svg)


def bars(
    axes: Axes,
    labels: list[str],
    series: list[tuple[Style, list[float | None]]],
    texts: list[list[str]],
    *,
    spans: list[list[tuple[float, float] | None]] | None = None,
    colours: Sequence[str] = (),
) -> None:
    """Horizontal bars, the first on top: for each label one of each series, with a text behind it.

    `texts` and `spans` (whiskers: from, to) are by series, as the values; a value that is None has no bar,
    and its text stands at the axis. `colours`, one for each label, take the place of the series'.
    """
    thick = 0.82 / len(series)
    ends = [value for _, values in series for value in values if value is not None]
    ends += [span[1] for spans_of in spans or () for span in spans_of if span]
    longest = max(ends, default=1.0)
    for place, (style, values) in enumerate(series):
        for index, value in enumerate(values):
            y = index - 0.41 + (place + 0.5) * thick
            span = spans[place][index] if spans else None
            end = 0.0 if value is None else max(value, span[1] if span else value)
            if value is not None:
                whiskers = [[max(0.0, value - span[0])], [max(0.0, span[1] - value)]] if span else None
                colour = colours[index] if colours else style.colour
                axes.barh(
                    y, value, 0.9 * thick, color=colour, xerr=whiskers, ecolor=INK,
                    error_kw={"linewidth": 0.8, "capsize": 1.5},
                )  # fmt: skip
            axes.annotate(
                texts[place][index], (end, y), xytext=(3, 0), textcoords="offset points", va="center",
                fontsize=7.5, color=MUTED if value is None else INK, bbox=BEHIND_TEXT,
            )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.set_xlim(0, 1.3 * longest)  # room for the text behind the longest
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


@dataclass(frozen=True)
class Bar:
    """One of `single_bars`; `value` None: no bar, and `text` says why. `span`: whiskers from and to."""

    label: str
    value: float | None
    text: str
    colour: str = INK
    span: tuple[float, float] | None = None


def single_bars(axes: Axes, found: Sequence[Bar]) -> None:
    """Horizontal bars, the first on top, each of its own colour."""
    bars(
        axes,
        [bar.label for bar in found],
        [(Style(INK), [bar.value for bar in found])],
        [[bar.text for bar in found]],
        spans=[[bar.span for bar in found]],
        colours=[bar.colour for bar in found],
    )


def bars_height(labels: int, series: int) -> float:
    """Inches of a panel of `bars`, whose texts must not touch."""
    return 0.75 + labels * max(0.26, 0.145 * series + 0.07)


def log_ticks(axis, *, plain: bool = True) -> None:
    """Ticks at 1, 2 and 5 of every power of ten, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if plain else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
