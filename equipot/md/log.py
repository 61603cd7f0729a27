"""The log of a run: a CSV file with units in the names of the columns."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.md.state import Observation
from equipot.units import GPa, kB

__all__ = ["Line", "read"]


class Line(NamedTuple):
    """Values of one line. An exact integrator would conserve ``conserved_eV``."""

    step: int
    time_ps: float
    temperature_K: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    conserved_eV: float
    pressure_GPa: float
    volume_A3: float
    dipole_x_eA: float | None = None
    """None, and no column, for a model without dipole moments; so of the other components."""
    dipole_y_eA: float | None = None
    dipole_z_eA: float | None = None
    energy_std_eV: float | None = None
    """None, and no column, for a run that began without a gate; NaN where it was not estimated, and so of the next two."""
    max_forces_std_eV_A: float | None = None
    max_novelty: float | None = None
    """Largest novelty of any atom in any of the steps since the line before."""


class Ledger(NamedTuple):
    """Converter of observations of the device to lines, in double precision."""

    isolated_atom_energy: float
    """Sum of E0 over the atoms, eV."""
    dof: int
    timestep_fs: float
    has_dipole: bool = False
    """Whether lines have the dipole moment."""
    has_gate: bool = False
    """Whether lines have deviations and novelty."""

    def line(self, step: int, seen: Observation, heat: float, novelty: float = np.nan) -> Line:
        """Convert one observation.

        Args:
            heat: energy that stochastic forces added before this chunk, eV.
            novelty: largest of any atom since the line before; NaN where it was not watched.
        """
        kinetic = float(seen.kinetic)
        potential = float(seen.interaction) + self.isolated_atom_energy
        total = potential + kinetic
        volume = float(seen.volume)
        pressure = (2 * kinetic / volume - float(np.trace(seen.stress))) / 3 / GPa
        x, y, z = map(float, seen.dipole) if self.has_dipole else (None, None, None)
        found = (float(seen.energy_std), float(np.max(seen.forces_std)), novelty)
        doubt = found if self.has_gate else (None, None, None)
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
            dipole_x_eA=x,
            dipole_y_eA=y,
            dipole_z_eA=z,
            energy_std_eV=doubt[0],
            max_forces_std_eV_A=doubt[1],
            max_novelty=doubt[2],
        )


BLOCKS = 10
"""Number of blocks for the error of a slope."""


def slope(x: Float[np.ndarray, " lines"], y: Float[np.ndarray, " lines"], is_random_walk: bool = False) -> tuple[float, float]:
    """Fit the slope of a straight line by least squares; return slope and standard error, NaN for too few lines.

    Successive lines are correlated, so that the error is computed from means over blocks. If ``y`` fluctuates about the line,
    the error is that of a line through the means. If y is a random walk about the line, the error follows from the differences
    d of successive means: blocks of length h of a walk whose variance grows by s^2 per unit of x have var(d) = 2/3 s^2 h, and
    the slope over n blocks has the variance 6/5 s^2 / (n h) = 9/5 var(d) / (n h^2).
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
"""Standard errors beyond which a drift is significant; the errors, from ten blocks, are uncertain themselves."""
SHORT_PS = 100.0
"""Length of a run (ps) below which the drift is given as the change over the run instead of per nanosecond."""


def describe_drift(drift: float, error: float, time_ps: float) -> str:
    """Describe the drift of the conserved energy in words; a drift within its error is not given as a number.

    Args:
        drift: meV/atom/ns.
        error: standard error of the drift, meV/atom/ns; NaN for too few lines.
        time_ps: length of the run, ps.
    """
    if np.isnan(error):
        return "too short for a drift of the conserved energy"
    if abs(drift) <= SIGMAS * error:
        return "no drift of the conserved energy beyond its statistical error"
    if time_ps < SHORT_PS:
        change, change_error = drift * time_ps / 1000, error * time_ps / 1000
        return f"the conserved energy changes by {change:.2g} ± {change_error:.1g} meV/atom in its {time_ps:.3g} ps"
    return f"drift of the conserved energy {drift:.3g} ± {error:.2g} meV/atom/ns"


def header(line: Line) -> str:
    """Write the names of the columns."""
    return ",".join(name for name, value in line._asdict().items() if value is not None) + "\n"


def has_gate_columns(path: Path) -> bool:
    """Whether the lines of a log have deviations and novelty."""
    with open(path, encoding="utf-8") as file:
        return "max_novelty" in file.readline().rstrip("\n").split(",")


def text(line: Line) -> str:
    """Write a line of the CSV file; NaN, such as the pressure of a molecule, is left empty."""
    show = lambda x: str(x) if isinstance(x, int) else "" if np.isnan(x) else repr(round(x, 10))
    return ",".join(show(x) for x in line if x is not None) + "\n"


def read(path: Path) -> dict[str, Float[np.ndarray, " lines"]]:
    """Read the columns of a log by name; empty values are NaN."""
    rows = path.read_text(encoding="utf-8").splitlines()
    value = lambda x: float(x) if x else np.nan
    names = rows[0].split(",")
    table = np.array([[value(x) for x in row.split(",")] for row in rows[1:]]).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))
