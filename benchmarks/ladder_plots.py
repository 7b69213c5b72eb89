"""The picture of a ladder: a bar for each rung, the first on top, and a line for the floor."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks.ladder_tables import rungs_of, title, why_not
from benchmarks.plots import write_picture
from benchmarks.results import Results
from benchmarks.rows import OK

COLOURS = {"stock": "#5f6b7a", "ours": "#d1495b"}
FLOOR = "#2a9d8f"


def plot_ladder(results: Results, path: Path) -> bool:
    """Write the picture to `path` in the format of its suffix; False, and no file, without a time to show or
    without matplotlib.
    """
    rungs = rungs_of(results.rows)
    timed = [rung.row for rung in rungs if rung.row["status"] == OK]
    if not timed or importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import StrMethodFormatter

    longest = max(row["p80_us"] for row in timed)
    figure, axes = pyplot.subplots(figsize=(9.0, 1.5 + 0.42 * len(rungs)), layout="constrained")
    for place, rung in enumerate(rungs):
        row = rung.row
        if row["status"] != OK:
            left = (max(0.0, timed[0].get("floor_us", 0.0)), place)  # behind the floor's line
            axes.annotate(
                why_not(row), left, xytext=(6, 0), textcoords="offset points", va="center", fontsize=9,
                color="#8a929c",
            )  # fmt: skip
            continue
        median = row["median_us"]
        whiskers = [[max(0.0, median - row["p20_us"])], [max(0.0, row["p80_us"] - median)]]
        axes.barh(
            place, median, 0.7, xerr=whiskers, color=COLOURS[row["group"]], ecolor="#222222", capsize=2.5,
            error_kw={"linewidth": 0.9},
        )  # fmt: skip
        ratio = "" if rung.over_eager is None or place == 0 else f"   {rung.over_eager:.2f}x eager"
        axes.annotate(
            f"{_us(median)}{ratio}", (max(median, row["p80_us"]), place), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    floor = timed[0].get("floor_us")
    if floor is not None:
        axes.axvline(floor, color=FLOOR, linestyle="--", linewidth=1.4, zorder=0)
        bound = f"floor {_us(floor)}: {timed[0]['floor_bound']}"
        axes.annotate(
            bound, (floor, -0.5), xytext=(0, 3), textcoords="offset points", ha="left", va="bottom",
            fontsize=9, color=FLOOR,
        )  # fmt: skip
    axes.set_yticks(range(len(rungs)), [str(rung.row["label"]) for rung in rungs])
    axes.set_ylim(len(rungs) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * max(longest, floor or 0.0))  # room for the text behind the longest bar
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.set_xlabel("microseconds an image, median of rounds, with 20th and 80th percentile")
    axes.set_title(title(results, "\n"), fontsize=10, loc="left", pad=18)
    axes.spines[["top", "right"]].set_visible(False)
    write_picture(figure, path, results, place=False)
    return True


def _us(microseconds: float) -> str:
    return f"{microseconds:,.0f} us" if microseconds >= 100 else f"{microseconds:.3g} us"
