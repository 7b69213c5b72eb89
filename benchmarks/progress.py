"""Progress of a sweep: a live bar on a terminal, one line for each step of note elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.cases import Case


def case_title(case: Case) -> str:
    """One line naming a case."""
    note = f" ({case.note})" if case.note else ""
    return f"{case.model} {case.image_size} px, batch {case.batch}, {case.dtype}{note}"


def row_text(row: dict[str, object]) -> str:
    """One peer's result in a few words."""
    if row["status"] == "ok":
        return f"{row['label']} {row['images_per_second']:.1f}"
    return f"{row['label']} {row['status']}"


def rows_text(rows: Sequence[dict[str, object]]) -> str:
    """A case's result in a line."""
    return "images/s: " + ", ".join(row_text(row) for row in rows)


class Reporter:
    """Shows where a sweep is. On a terminal the current step is live; elsewhere each case is a line when it
    begins and ends. `title` and `text` put a case and its rows into words.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: Callable[..., str] = case_title,
        text: Callable[[Sequence[dict[str, object]]], str] = rows_text,
    ):
        self.console = console
        self._title_of, self._text_of = title, text
        self._progress: Progress | None = None
        self._task = None
        self._count = 0
        self._done = 0
        self._began = 0.0

    def start(self, cases: Sequence) -> None:
        self._count, self._done = len(cases), 0
        if self.console.is_terminal and cases:
            self._progress = Progress(
                MofNCompleteColumn(),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=self.console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=len(cases))
            self._progress.start()

    def begin_case(self, case: object) -> None:
        self._began = time.monotonic()
        self._title = self._title_of(case)
        if self._progress is None:
            place = f"[{self._done + 1}/{self._count}]"
            self.console.print(f"{place} {self._title}", markup=False, highlight=False)

    def step(self, text: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description=f"{self._title}: {text}")

    def end_case(self, case: object, rows: Sequence[dict[str, object]]) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done)
        seconds = time.monotonic() - self._began
        prefix = f"{self._title}: " if self._progress is not None else "      "
        self.console.print(f"{prefix}{self._text_of(rows)} ({seconds:.0f} s)", markup=False, highlight=False)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
