"""`python -m benchmarks report`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.console import FOLDER, LOCAL, RESULTS, new_console, refuse, shown_path
from benchmarks.report.files import committed_files, read, result_files
from benchmarks.report.page import build
from benchmarks.results import ResultError

OUT = RESULTS / "report"
PAGE = "index.html"
PLOTS = "plots"


@click.command("report")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@click.option(
    "--out", type=FOLDER, default=OUT, help="Folder of the page.  [default: benchmarks/results/report]"
)
def report(paths: tuple[Path, ...], out: Path) -> None:
    """Make one HTML page, and its plots as SVG and PNG, of result files; of a folder those below it.

    Without any: of the committed ones. Nothing is measured. Exit status 2 for a file that is damaged, edited
    or of another schema; the page that is there is left as it is.
    """
    try:
        files = result_files(paths) if paths else committed_files(RESULTS)
        written = write_report(files, out)
    except ResultError as error:
        raise refuse(error) from error
    new_console().print(f"written: {shown_path(written)}", markup=False, highlight=False)


def write_local_page(measured: Sequence[Path]) -> None:
    """The page of what was `measured` just now, where there is such a file, and of the committed files; its
    path is printed, and a file that cannot be used is the command's error.
    """
    try:
        files = [path for path in measured if path.exists()]
        written = write_report([*files, *committed_files(RESULTS)], LOCAL / "report")
    except ResultError as error:
        raise refuse(error) from error
    new_console().print(f"the page of all results: {shown_path(written)}", markup=False, highlight=False)


def write_report(files: Sequence[Path], out: Path) -> Path:
    """Write the page of `files` into `out`, and its plots beside it; returns the page.

    Everything is read, checked and drawn before the first file is written, and the page comes last.

    Raises: ResultError where there is no file, or for the first one that cannot be used.
    """
    if not files:
        raise ResultError(f"{out}: there are no result files to make a page of; name some, or a folder")
    html, panels = build(read(files))
    (out / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, drawn in panels.items():
        _replace(out / PLOTS / f"{name}.svg", drawn.svg.encode())
        _replace(out / PLOTS / f"{name}.png", drawn.png)
    _replace(out / PAGE, html.encode())
    return out / PAGE


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)
