"""Figures for reports: one style, no display needed, PNG files written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from equipot.files import write_atomically

BLUE, ORANGE, GREY = "#20639b", "#d1603d", "#8a8f98"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 150,
}
"""Settings of matplotlib, for ``matplotlib.rc_context``."""


def empty_figure(width: float, height: float) -> Any:
    """Make a figure without axes, for which no display is needed; width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(width: float, height: float, columns: int) -> tuple[Any, Any]:
    """Make a figure with a row of panels; width and height in inches. Returns the figure and its axes, (columns,)."""
    figure = empty_figure(width, height)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file.

    Raises:
        OSError: the file cannot be written; an older file at ``path`` is kept.
    """
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_atomically(path, image.getvalue())
