"""Plot of a run: energies, temperature and, if defined, pressure and volume over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipot.figures import BLUE, GREY, ORANGE, STYLE, new_figure, save_figure


def plot(table: Mapping[str, np.ndarray], path: Path) -> None:
    """Plot the columns of a log to a PNG file."""
    save_figure(draw_log(table), path)


def draw_log(table: Mapping[str, np.ndarray]) -> Any:
    """Plot the columns of a log to a matplotlib figure."""
    from matplotlib import rc_context

    periodic = not np.isnan(table["pressure_GPa"]).all()
    varies = periodic and np.ptp(table["volume_A3"]) > 0
    panels = 2 + periodic + varies
    time = table["time_ps"]
    with rc_context(STYLE):
        figure, axes = new_figure(3.6 * panels, 2.8, panels)
        for name, colour in (("potential_eV", BLUE), ("total_eV", GREY), ("conserved_eV", ORANGE)):
            energy = table[name] - table["conserved_eV" if name == "conserved_eV" else "total_eV"][0]
            axes[0].plot(time, energy, color=colour, linewidth=0.9, label=name.removesuffix("_eV"))
        axes[0].set_ylabel("energy from the initial total (eV)")
        axes[0].legend()
        others = [("temperature_K", "temperature (K)"), ("pressure_GPa", "pressure (GPa)"), ("volume_A3", "volume (Å³)")]
        for axis, (name, label) in zip(axes[1:], others, strict=False):
            axis.plot(time, table[name], color=BLUE, linewidth=0.6)
            axis.plot(time, running_mean(table[name]), color=ORANGE, linewidth=1.2, label="mean so far")
            axis.set_ylabel(label)
            axis.legend()
        for axis in axes:
            axis.set_xlabel("time (ps)")
    return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """Compute the mean of all values up to each one, (lines,)."""
    return np.cumsum(values) / np.arange(1, len(values) + 1)
