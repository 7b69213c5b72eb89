"""The file of a grid search: its settings and the points that are finished."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Record"]

_FORMAT = "effnet_fast grid search 1"
_AXES = ("alpha", "beta", "gamma")

Triple = tuple[float, float, float]


@dataclass
class Record:
    """Scores by (alpha, beta, gamma); each `add` rewrites the file, so that an interruption loses one point.

    Attributes:
        path: of the file, None to keep nothing.
        settings: JSON-like; what must be equal for a search to go on.
        scores: finished points.
    """

    path: Path | None
    settings: dict[str, object]
    scores: dict[Triple, float] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, settings: dict[str, object]) -> Record:
        """The record in `path`, a new one where there is no file.

        Raises: ValueError for a file that is damaged, or of other settings (it names them); OSError for one
            that cannot be read or written.
        """
        record = cls(path, settings)
        if path is None:
            return record
        if path.exists():
            record._read()
        # Better known before hours of training than after the first point.
        path.parent.mkdir(parents=True, exist_ok=True)
        record._partial.touch()
        record._partial.unlink()
        return record

    @property
    def _partial(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    def score_of(self, triple: Triple) -> float | None:
        """None for a point that is not finished."""
        return self.scores.get(triple)

    def add(self, triple: Triple, score: float) -> None:
        """Keep a finished point."""
        self.scores[triple] = score
        if self.path is None:
            return
        points = [
            {**dict(zip(_AXES, key, strict=True)), "score": value} for key, value in self.scores.items()
        ]
        data = {"format": _FORMAT, "settings": self.settings, "points": points}
        self._partial.write_text(json.dumps(data, indent=1) + "\n")
        os.replace(self._partial, self.path)  # at once: a reader sees the old file or the new one

    def _read(self) -> None:
        try:
            data = json.loads(self.path.read_text())
            if data["format"] != _FORMAT:
                raise ValueError(f"its format is {data['format']!r}, not {_FORMAT!r}")
            settings = dict(data["settings"])
            for point in data["points"]:
                key = tuple(float(point[axis]) for axis in _AXES)
                score = float(point["score"])
                if not math.isfinite(score):
                    raise ValueError(f"the score of {key} is {score}")
                self.scores[key] = score
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} is damaged or no file of a grid search ({type(error).__name__}: {error}): "
                "delete it, or name another file"
            ) from error
        different = [
            key for key in sorted({*settings, *self.settings}) if settings.get(key) != self.settings.get(key)
        ]
        if different:
            key = different[0]
            raise ValueError(
                f"{self.path} belongs to a search with other settings: {', '.join(different)} "
                f"({key}: {settings.get(key)!r} there, {self.settings.get(key)!r} here): name another file"
            )
