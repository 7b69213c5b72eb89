"""Colours of the page in its two themes. A plot is drawn once, in those of the light one."""

from __future__ import annotations

import colorsys
import re

#: Light theme -> dark theme, of what is neither a series nor a bar.
INK, MUTED, GRID, GROUND = "#1f2328", "#59636e", "#e1e4e8", "#ffffff"
FIXED = {INK: "#e6edf3", MUTED: "#9aa4af", GRID: "#30363d", GROUND: "#0f1318"}

_HEX = re.compile(r"#[0-9a-f]{6}\b", re.IGNORECASE)


def dark(colour: str) -> str:
    """The colour of the dark theme for one of the light theme: the same hue, the darker the lighter."""
    if colour in FIXED:
        return FIXED[colour]
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    channels = colorsys.hls_to_rgb(hue, 1 - 0.75 * lightness, min(saturation, 0.8))
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def variable(colour: str) -> str:
    """The CSS variable that stands for a colour of the light theme."""
    return f"--c{colour[1:].lower()}"


def with_variables(svg: str) -> str:
    """`svg` with every colour as its variable, which the style sheet sets for each theme."""
    return _HEX.sub(lambda found: f"var({variable(found[0])})", svg)


def style_sheet(colours: set[str], selector: str = ":root") -> str:
    """CSS that sets the variables of `colours` in both themes."""
    ordered = sorted(colour.lower() for colour in colours)
    light = "".join(f"{variable(colour)}:{colour};" for colour in ordered)
    black = "".join(f"{variable(colour)}:{dark(colour)};" for colour in ordered)
    return f"{selector}{{{light}}}@media(prefers-color-scheme:dark){{{selector}{{{black}}}}}"


def colours_of(svg: str) -> set[str]:
    """Every colour in `svg`."""
    return {found.lower() for found in _HEX.findall(svg)}
