"""The figure of vibrations: the infrared spectrum, or the modes as sticks of equal height."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from equipot.figures import BLUE, GREY, STYLE, new_figure, save_figure
from equipot.workflows.vibrations.calculation import Vibrations
from equipot.workflows.vibrations.infrared import broadened


def draw(found: Vibrations, width: float, path: Path) -> None:
    """Draw the spectrum with lines of a ``width`` (1/cm), and write a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, (axis,) = new_figure(7.0, 3.0, 1)
        strengths = np.ones(len(found.modes.wavenumbers)) if found.infrared is None else found.infrared
        sticks = axis.twinx() if found.infrared is not None else axis
        sticks.vlines(found.modes.wavenumbers, 0, strengths, color=GREY, linewidth=1.0)
        sticks.set_ylabel("modes" if found.infrared is None else "intensity (km/mol)")
        sticks.grid(visible=False)
        sticks.set_ylim(bottom=0)
        if found.infrared is not None:
            axis.plot(*broadened(found.modes, strengths, width), color=BLUE)
            axis.set_ylabel("absorption (km/mol per 1/cm)")
            axis.set_ylim(bottom=0)
        axis.set_xlabel("wavenumber (1/cm)")
        save_figure(figure, path)
