"""The log of a run: one line of figures every so many steps, as CSV, with units in the names of the columns."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.md.state import Observation
from equipot.units import GPa, kB


class Line(NamedTuple):
    """Figures of one step. ``conserved_eV`` is what an exact integrator would keep constant."""

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
    """Turns observations of the device into lines, in double precision."""

    isolated_atom_energy: float
    """Sum of E0 over the atoms, eV."""
    dof: int
    timestep_fs: float

    def line(self, step: int, seen: Observation, heat: float) -> Line:
        """Line of one observation; ``heat`` is what stochastic forces put in before this chunk (eV)."""
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


def slope(x: Float[np.ndarray, " lines"], y: Float[np.ndarray, " lines"], is_random_walk: bool = False) -> tuple[float, float]:
    """Slope of a straight line by least squares and its standard error; NaN where there are too few lines.

    Lines that follow each other are not independent, so that the error is told from the means of ten blocks. Where ``y``
    fluctuates about the line, it is that of a line through these means. Where y makes a random walk with the line for its mean,
    it follows from the differences d of consecutive means: blocks of length h of a walk whose variance grows by s^2 a unit of
    x have var(d) = 2/3 s^2 h, and the slope over n blocks has the variance 6/5 s^2 / (n h), so 9/5 var(d) / (n h^2).
    """
    if len(x) < 3:
        return np.nan, np.nan
    found = float(np.polyfit(x, y, 1)[0])
    if len(x) < 2 * BLOCKS:
        return found, np.nan
    of_x, of_y = ([part.mean() for part in np.array_split(values, BLOCKS)] for values in (x, y))
    if is_random_walk:
        variance = 9 / 5 * np.var(np.diff(of_y), ddof=1) / BLOCKS / np.mean(np.diff(of_x)) ** 2
    else:
        variance = np.polyfit(of_x, of_y, 1, cov=True)[1][0, 0]
    return found, float(np.sqrt(variance))


SIGMAS = 3.0
"""A drift counts as one beyond so many standard errors: these are told from ten blocks, and so not well known themselves."""
SHORT_PS = 100.0
"""A drift over a shorter time (ps) is stated as a change within it, and not for a nanosecond."""


def describe_drift(drift: float, error: float, time_ps: float) -> str:
    """What a reader of a run should know of the drift of the conserved energy, in words.

    ``drift`` and its standard error ``error`` are in meV/atom/ns, over ``time_ps``; NaN where there are too few lines. A figure
    that its error exceeds is left out.
    """
    if np.isnan(error):
        return "too short for a drift of the conserved energy"
    if abs(drift) <= SIGMAS * error:
        return "no drift of the conserved energy beyond its statistical error"
    if time_ps < SHORT_PS:
        change, change_error = drift * time_ps / 1000, error * time_ps / 1000
        return f"the conserved energy changes by {change:.2g} ± {change_error:.1g} meV/atom in its {time_ps:.3g} ps"
    return f"drift of the conserved energy {drift:.3g} ± {error:.2g} meV/atom/ns"


HEADER = ",".join(Line._fields) + "\n"


def text(line: Line) -> str:
    """A line of the CSV; figures that do not exist (the pressure of a molecule) are empty."""
    show = lambda x: str(x) if isinstance(x, int) else "" if np.isnan(x) else repr(round(x, 10))
    return ",".join(map(show, line)) + "\n"


def read(path: Path) -> dict[str, Float[np.ndarray, " lines"]]:
    """Read the columns of a log by name; empty figures are NaN."""
    rows = path.read_text(encoding="utf-8").splitlines()
    value = lambda x: float(x) if x else np.nan
    table = np.array([[value(x) for x in row.split(",")] for row in rows[1:]]).reshape(-1, len(Line._fields))
    return dict(zip(rows[0].split(","), table.T, strict=True))
