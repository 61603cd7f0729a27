"""Infrared absorption from the fluctuations of the dipole moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot import units
from equipot.workflows.statistics.correlation import Correlator
from equipot.workflows.statistics.trajectory import Trajectory

PER_CM = units.planck * units.THz / units.per_cm
"""cm^-1 of one THz."""
JUMP = 12.0
"""Change between two frames, in its root mean square, from which a dipole moment counts as having jumped."""
FEWEST_SEGMENTS = 4
"""Number of segments below which an error is not to be relied on."""


@dataclass(frozen=True)
class Infrared:
    """Infrared spectrum."""

    wavenumbers_cm: Float[np.ndarray, " points"]
    """cm^-1."""
    absorption: Float[np.ndarray, " points"]
    """Of a system with a volume, absorption coefficient (natural logarithm) times refractive index, cm^-1; else the molar
    integrated intensity per wavenumber, km/mol per cm^-1."""
    error: Float[np.ndarray, " points"]
    """Standard error; NaN for a single segment."""
    unit: str
    segments: int
    failures: tuple[str, ...]


def infrared(trajectory: Trajectory, resolution_THz: float, temperature_K: float) -> Infrared:
    """Compute the infrared spectrum of a trajectory whose frames, or whose run's log, have dipole moments.

    Raises:
        ValueError: no dipole moments, or too few for the resolution.
    """
    dipoles, volumes = [], []
    for frame in trajectory.checked():
        volumes.append(frame.volume)
        if frame.dipole is not None:
            dipoles.append(np.asarray(frame.dipole, np.float64))
    interval, volume = trajectory.interval_fs, float(np.mean(volumes)) if all(trajectory.pbc) else None
    if len(dipoles) == len(volumes):
        return infrared_of_dipoles(np.array(dipoles), interval, resolution_THz, temperature_K, volume)
    table = _log(trajectory)
    if table is None:
        raise ValueError(
            f"{trajectory.name} has no dipole moments: an infrared spectrum needs a potential that has them (Electrostatics), "
            "and frames with a dipole or the log.csv of the run beside"
        )
    return infrared_of_dipoles(table[1], table[0], resolution_THz, temperature_K, volume)


def has_dipoles(trajectory: Trajectory) -> bool:
    """Whether frames, or the log beside them, have dipole moments."""
    return next(iter(trajectory.frames())).dipole is not None or _log(trajectory) is not None


def _log(trajectory: Trajectory) -> tuple[float, Float[np.ndarray, "lines 3"]] | None:
    """Return interval (fs) and dipole moments of the log, from the time on at which the trajectory begins."""
    from equipot.md import log

    if trajectory.log is None:
        return None
    table = log.read(trajectory.log)
    if "dipole_x_eA" not in table:
        return None
    first = next(iter(trajectory.frames())).time_fs or 0.0
    late = table["time_ps"] * 1e3 > first - 1e-6
    dipoles = np.stack([table[f"dipole_{x}_eA"] for x in "xyz"], axis=1)[late]
    return float(np.diff(table["time_ps"]).mean() * 1e3), dipoles


def infrared_of_dipoles(
    dipoles: Float[np.ndarray, "frames 3"],
    interval_fs: float,
    resolution_THz: float,
    temperature_K: float,
    volume: float | None = None,
) -> Infrared:
    """Compute the absorption alpha n = 1 / (6 eps_0 c V kT) integral of <M'(0) M'(t)> exp(i omega t) over t.

    This is the classical fluctuation-dissipation relation with the quantum correction of the harmonic oscillator, exact for one
    (Ramirez et al., J. Chem. Phys. 121, 3973 (2004)); M' is the change of the dipole moment between frames, with the factor
    (x / sin x)^2, x = omega interval / 2, that makes of a difference a derivative. Without a volume, alpha n V times Avogadro's
    number is given, whose integral over a line of one molecule is pi N |dM/dQ|^2 / (3 c^2) / (4 pi eps_0) as harmonic analysis
    has it.

    Args:
        dipoles: e Å.
        interval_fs: Time between them, fs.
        resolution_THz: Full width at half maximum of a sharp line, THz.
        temperature_K: K.
        volume: Å^3; None for an isolated system.

    Raises:
        ValueError: values that are not finite, or too few for the resolution.
    """
    if not np.isfinite(dipoles).all():
        raise ValueError(
            "dipole moments are not finite: in a cell that repeats only charges that flow along pairs have a dipole moment "
            "(Electrostatics with Flows)"
        )
    rate = np.diff(dipoles, axis=0) / interval_fs
    correlator = Correlator(interval_fs, resolution_THz, [np.arange(3)])
    for row in rate:
        correlator.add(row)
    found = correlator.result()
    # 1 / (6 eps_0 c kT) = (4 pi / 6) (1 / 4 pi eps_0) / (c kT): Å^2 of the spectrum in e^2 Å^2 / fs.
    area = 4 * np.pi / 6 * units.coulomb_constant / (units.light * units.kB * temperature_K)
    unit_scale = area / volume * 1e8 if volume else area * 1e-20 * units.mol * 100 / 1000
    scale = unit_scale / np.sinc(found.frequencies_THz * 1e-3 * interval_fs) ** 2
    failures = []
    jumps = np.abs(rate).max() / np.sqrt(np.mean(rate**2)) if np.any(rate) else np.inf
    if jumps > JUMP:
        failures.append(
            "infrared: the dipole moment jumps between two frames, as where charged atoms are wrapped into the cell"
        )
    if found.segments < FEWEST_SEGMENTS:
        failures.append(f"infrared: {found.segments} independent segments are too few for errors; run longer")
    absorption = scale * found.spectra[0]
    if absorption[-1] > 0.05 * absorption.max():
        failures.append(f"infrared: dipole moments every {interval_fs:g} fs are too far apart for the fastest vibrations")
    unit = "cm^-1" if volume else "km/mol per cm^-1"
    error = scale * found.spectra_error[0]
    return Infrared(PER_CM * found.frequencies_THz, absorption, error, unit, found.segments, tuple(failures))
