"""The log of a run: one line of figures every so many steps, as CSV, with units in the names of the columns."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.md.state import Observation
from equipot.units import GPa, kB


class Line(NamedTuple):
    """What is known of one moment. ``conserved_eV`` is what an exact integrator would keep constant."""

    step: int
    time_ps: float
    temperature_K: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    conserved_eV: float
    pressure_GPa: float
    volume_A3: float


class Ledger(NamedTuple):
    """What turns observations of the device into lines, in double precision."""

    isolated_atom_energy: float
    """Sum of E0 over the atoms, eV."""
    dof: int
    timestep_fs: float

    def line(self, step: int, seen: Observation, heat: float) -> Line:
        """One line; ``heat`` is what stochastic forces put in before this chunk (eV)."""
        kinetic = float(seen.kinetic)
        potential = float(seen.interaction) + self.isolated_atom_energy
        total = potential + kinetic
        volume = float(seen.volume)
        pressure = (2 * kinetic / volume - float(np.trace(seen.stress))) / 3 / GPa
        return Line(
            step=step,
            time_ps=step * self.timestep_fs / 1000,
            temperature_K=2 * kinetic / (self.dof * kB),
            potential_eV=potential,
            kinetic_eV=kinetic,
            total_eV=total,
            conserved_eV=total + float(seen.reservoir) - heat,
            pressure_GPa=pressure,
            volume_A3=volume,
        )


BLOCKS = 10
"""Parts of a run whose means tell how well a slope is known."""


def slope(x: Float[np.ndarray, " lines"], y: Float[np.ndarray, " lines"]) -> tuple[float, float]:
    """Slope of a straight line and its standard error; NaN where there are too few lines.

    The error is that of a line through the means of ten blocks: lines that follow each other are not independent.
    """
    if len(x) < 3:
        return np.nan, np.nan
    error = np.nan
    if len(x) >= 2 * BLOCKS:
        means = [[part.mean() for part in np.array_split(values, BLOCKS)] for values in (x, y)]
        _, covariance = np.polyfit(*means, 1, cov=True)
        error = np.sqrt(covariance[0, 0])
    return float(np.polyfit(x, y, 1)[0]), float(error)


HEADER = ",".join(Line._fields) + "\n"


def text(line: Line) -> str:
    """A line of the CSV; figures that do not exist (the pressure of a molecule) are empty."""
    show = lambda x: str(x) if isinstance(x, int) else "" if np.isnan(x) else repr(round(x, 10))
    return ",".join(map(show, line)) + "\n"


def read(path: Path) -> dict[str, Float[np.ndarray, " lines"]]:
    """Columns of a log by name; what is empty is NaN."""
    rows = path.read_text(encoding="utf-8").splitlines()
    value = lambda x: float(x) if x else np.nan
    table = np.array([[value(x) for x in row.split(",")] for row in rows[1:]]).reshape(-1, len(Line._fields))
    return dict(zip(rows[0].split(","), table.T, strict=True))
