"""The picture of a suite: every peer's speed as a share of the engine's, a group of bars for each case.

Shares, because images per second of B0 and V2-S differ by twenty times, and a bar needs a scale from zero.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks.plots import STYLES, add_legend, write_picture
from benchmarks.results import Results
from benchmarks.tables import (
    Row,
    best,
    cases_of,
    labels_of,
    model_text,
    shown_rows,
    speed,
    speed_text,
)

#: Share of the distance between two cases that their bars take.
WIDTH = 0.84


def plot_bars(results: Results, path: Path) -> bool:
    """Write the picture to `path`, a panel for each dtype and for one image and several; False, and no file,
    without a time of the engine or without matplotlib.
    """
    rows = [row for row in shown_rows(results.rows) if speed(row) is not None]
    panels = _panels(rows)
    if not panels or importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = labels_of(rows)
    longest = max(len(cases) for cases in panels.values())
    size = (max(10.0, 1.5 + 1.3 * longest), 1.0 + 2.6 * len(panels))
    figure, axes = pyplot.subplots(len(panels), 1, figsize=size, squeeze=False, layout="constrained")
    for panel, ((dtype, single), cases) in zip(axes.flat, panels.items(), strict=True):
        width = WIDTH / len(labels)
        for place, peer in enumerate(labels):
            known = [
                (index - WIDTH / 2 + (place + 0.5) * width, speed(row) / best(case, "engine"))
                for index, case in enumerate(cases)
                for row in case
                if row["peer"] == peer
            ]
            colour = STYLES.get(peer, ("#7b4ea3",))[0]
            panel.bar([x for x, _ in known], [share for _, share in known], width, color=colour)
        panel.set_xticks(range(len(cases)), [_case_text(case) for case in cases], fontsize=8)
        panel.set_xlim(-0.5, longest - 0.5)
        panel.axhline(1.0, color=STYLES["engine"][0], linewidth=0.8, zorder=0)
        panel.set_ylabel("speed, effnet_fast = 1")
        panel.set_title(f"{dtype}, {'one image' if single else 'several images'}", fontsize=11, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    colours = [pyplot.Rectangle((0, 0), 1, 1, color=STYLES.get(peer, ("#7b4ea3",))[0]) for peer in labels]
    add_legend(figure, colours, list(labels.values()), fontsize=8)
    write_picture(figure, path, results)
    return True


def _panels(rows: list[Row]) -> dict[tuple[str, bool], list[list[Row]]]:
    """Rows of each case in which the engine has a time, by dtype and by whether it is one image."""
    panels: dict[tuple[str, bool], list[list[Row]]] = {}
    for case in cases_of(rows).values():
        if best(case, "engine") is not None:
            panels.setdefault((str(case[0]["dtype"]), case[0]["batch"] == 1), []).append(case)
    order = sorted(panels, key=lambda panel: (panel[0] != "float32", panel[0], not panel[1]))
    return {panel: panels[panel] for panel in order}


def _case_text(case: list[Row]) -> str:
    batch = "" if case[0]["batch"] == 1 else f", batch {case[0]['batch']}"
    name, size = model_text(case[0]).split(" @")
    ours = next(row for row in case if row["group"] == "engine")
    return f"{name}\n@{size}{batch}\n{speed_text(ours)} images/s"
