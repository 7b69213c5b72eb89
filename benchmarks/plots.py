"""The picture of a sweep: images/s across phi, a panel for each dtype and batch, a line for each peer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Results
from benchmarks.tables import labels_of, place_text, shown_rows, speed

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

#: Colour, marker and line of each peer: greys and cool colours for what exists, one warm colour for this
#: project. Told apart by marker and dash as well, for readers who do not see the colours.
STYLES = {
    "eager-nchw": ("#868d95", "o", ":"),
    "eager-nhwc": ("#5f6b7a", "s", "--"),
    "eager-folded": ("#2a9d8f", "^", "-."),
    "eager-tuned": ("#8a6d3b", "P", (0, (5, 1))),
    "compiled-plain": ("#7f9fd6", "d", ":"),
    "compiled": ("#3366cc", "D", "-"),
    "onnxruntime": ("#7b4ea3", "X", "--"),
    "openvino-latency": ("#b07aa1", "<", "-."),
    "openvino-throughput": ("#9a86c9", ">", ":"),
    "engine": ("#d1495b", "*", "-"),
    "engine-uint8": ("#e0717f", "v", "--"),
    # The fastest of a group, where there are too many peers.
    "eager": ("#5f6b7a", "s", "--"),
    "graph": ("#2a9d8f", "^", "-."),
    "plain": ("#7f9fd6", "d", ":"),
    "runtime": ("#7b4ea3", "X", "--"),
}


def plot_models(results: Results, path: Path) -> bool:
    """Write the picture to `path` in the format of its suffix; False, and no file, without a time to show or
    without matplotlib.
    """
    rows = shown_rows(results.rows)
    rows = [row for row in rows if row.get("phi") is not None and speed(row) is not None]
    if not rows or importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    batches = sorted({asked_batch(row) for row in rows})
    dtypes = sorted({row["dtype"] for row in rows}, key=lambda name: (name != "float32", name))
    phis = sorted({row["phi"] for row in rows})
    labels = labels_of(rows)
    figure, axes = pyplot.subplots(
        len(batches),
        len(dtypes),
        figsize=(1.2 + 4.6 * len(dtypes), 1.4 + 3.3 * len(batches)),
        squeeze=False,
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for line, batch in enumerate(batches):
        for column, dtype in enumerate(dtypes):
            panel = axes[line][column]
            for peer, label in labels.items():
                points = sorted(
                    (row["phi"], row["images_per_second"], row["note"])
                    for row in rows
                    if (row["peer"], row["dtype"], asked_batch(row)) == (peer, dtype, batch)
                )
                if not points:
                    continue
                colour, marker, dash = STYLES.get(peer, ("#7b4ea3", "v", "-"))
                ours = peer == "engine"
                panel.plot(
                    [point[0] for point in points],
                    [point[1] for point in points],
                    color=colour,
                    marker=marker,
                    linestyle=dash,
                    markersize=11 if ours else 6,
                    linewidth=2.4 if ours else 1.5,
                    zorder=3 if ours else 2,
                    label=label,
                )
                if ours:
                    for phi, value, _ in points:
                        panel.annotate(
                            f"{value:.0f}" if value >= 10 else f"{value:.1f}",
                            (phi, value),
                            xytext=(0, 9),
                            textcoords="offset points",
                            ha="center",
                            fontsize=8,
                            color=colour,
                        )
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.margins(x=0.08, y=0.14)
            if any("_phi" in row["model"] for row in rows):
                phis = [phi for phi in phis if float(phi).is_integer()]
                panel.set_xticks(phis, [f"{phi:g}" for phi in phis])
            else:
                panel.set_xticks(phis, [f"B{phi}" for phi in phis])
            panel.set_title(f"{dtype}, batch {batch}", fontsize=11, loc="left")
            panel.grid(True, which="major", color="#e3e6ea", linewidth=0.8)
            panel.spines[["top", "right"]].set_visible(False)
            if column == 0:
                panel.set_ylabel("images/s (log scale)")
            if line == len(batches) - 1:
                sides = {row["image_size"] for row in rows}
                where = "each variant at its own resolution" if len(sides) > 1 else f"{min(sides)} pixels"
                panel.set_xlabel(f"compound coefficient phi ({where})")
    handles = {}
    for panel in axes.flat:
        lines, texts = panel.get_legend_handles_labels()
        handles.update(zip(texts, lines, strict=True))
    shown = [label for label in labels.values() if label in handles]
    add_legend(figure, [handles[label] for label in shown], shown)
    write_picture(figure, path, results)
    return True


def add_legend(figure: Figure, handles: list[Artist], labels: list[str], **options: object) -> None:
    """A legend above the panels, in as few lines as the figure's width allows."""
    place = {"loc": "outside upper center", "frameon": False}
    for lines in range(1, len(labels) + 1):
        legend = figure.legend(handles, labels, ncols=-(-len(labels) // lines), **place, **options)
        fits = legend.get_window_extent(figure.canvas.get_renderer()).width <= figure.bbox.width
        if fits or lines == len(labels):
            return
        legend.remove()


def write_picture(figure: Figure, path: Path, results: Results, *, place: bool = True) -> None:
    """Write `figure` to `path`; below it with what it was measured, and, unless the title says so, where."""
    from matplotlib import pyplot

    environment = results.environment
    software = f"torch {environment['libraries']['torch']}, {environment['date']}"
    footer = f"{place_text(environment)}, {software}" if place else software
    figure.supxlabel(footer, fontsize=8, color="#5f6b7a")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def asked_batch(row: dict[str, object]) -> int:
    """The batch that was asked for: a limited one belongs in the panel of what it stands for."""
    words = str(row["note"]).split()
    return int(words[1]) if words[:1] == ["batch"] else row["batch"]
