"""Interactive plots: curves whose points are read out by hovering, with zoom and a legend that hides curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from equipot.pages.block import Block
from equipot.pages.markup import json_text, script

MOST_POINTS = 4000
"""Largest number of points of a curve in a page."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Points that a line joins, or points alone. Values that are not finite are gaps.

    Raises:
        ValueError: arrays that are not one-dimensional, or of different lengths.
    """

    name: str
    """Name in the legend and in the readout; empty for a curve without an entry."""
    x: np.ndarray
    """(points,)"""
    y: np.ndarray
    """(points,)"""
    points: bool = False
    """Whether the points are drawn alone, without a line."""
    error: np.ndarray | None = None
    """(points,) half lengths of error bars, in the unit of y."""
    group: str = ""
    """Entry of the legend, with one colour, that the curve shares with others, as the bands of a structure do."""

    def __post_init__(self) -> None:
        for key in ("x", "y") + (() if self.error is None else ("error",)):
            object.__setattr__(self, key, np.array(getattr(self, key), np.float64))
        shapes = {np.shape(array) for array in (self.x, self.y, self.error) if array is not None}
        if len(shapes) != 1 or self.x.ndim != 1:
            raise ValueError(f"curve {self.name!r}: x, y and error have shapes {sorted(shapes)}; give arrays of one length")

    def thinned(self) -> Curve:
        """Return the curve with at most about ``MOST_POINTS`` points.

        Of a line, the lowest and the highest point of each of many equal stretches are kept, so that no peak is lost; of points
        alone and of points with error bars, every n-th.
        """
        count = len(self.x)
        if count <= MOST_POINTS:
            return self
        if self.points or self.error is not None:
            kept = np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(int))
        else:
            parts = np.array_split(np.arange(count), MOST_POINTS // 2)
            low = [part[np.argmin(np.nan_to_num(self.y[part], nan=np.inf))] for part in parts]
            high = [part[np.argmax(np.nan_to_num(self.y[part], nan=-np.inf))] for part in parts]
            kept = np.unique([0, *low, *high, count - 1])
        error = None if self.error is None else self.error[kept]
        return Curve(self.name, self.x[kept], self.y[kept], self.points, error, self.group)


@dataclass(frozen=True)
class Plot(Block):
    """Curves over one axis.

    Without ``x_label`` the names of the marks stand in place of numbers below the axis, as in a band structure.
    """

    curves: Sequence[Curve]
    x_label: str
    """With the unit."""
    y_label: str
    """With the unit."""
    marks: Sequence[tuple[float, str]] = ()
    """Vertical lines: position and name."""
    log_x: bool = False
    log_y: bool = False

    @property
    def scripts(self) -> tuple[str, ...]:
        """Script elements that a page with such blocks needs once."""
        return (script("plot.js"),)

    def html(self) -> str:
        """Write the data of the plot, behind which the script draws it, and what was left out of it."""
        shown = [curve.thinned() for curve in self.curves]
        content = {
            "heading": self.heading,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "log_x": self.log_x,
            "log_y": self.log_y,
            "marks": [[float(place), name] for place, name in self.marks],
            "curves": [
                {"name": c.name, "group": c.group, "x": c.x, "y": c.y, "error": c.error, "points": c.points} for c in shown
            ],
        }
        notes = "".join(f'\n<p class="note">{escape(note)}</p>' for note in self.notes(shown))
        return f'<script type="application/json" data-plot>{json_text(content)}</script>{notes}'

    def notes(self, shown: Sequence[Curve]) -> list[str]:
        """Say which points the plot does not show."""
        if not any(np.isfinite(curve.x + curve.y).any() for curve in self.curves):
            return ["There is nothing to plot: no point has finite values."]
        notes = []
        more = max((len(before.x) for before, after in zip(self.curves, shown, strict=True) if after is not before), default=0)
        if more:
            notes.append(f"Curves of up to {more} points are drawn with about {MOST_POINTS} of them.")
        broken = sum(int((~np.isfinite(curve.x + curve.y)).sum()) for curve in self.curves)
        if broken:
            notes.append(f"{broken} point(s) whose values are not finite are left out.")
        below = sum(int((self.log_x & (c.x <= 0) | self.log_y & (c.y <= 0)).sum()) for c in self.curves)
        if below:
            notes.append(f"{below} point(s) that are not positive have no place on a logarithmic axis and are left out.")
        return notes
