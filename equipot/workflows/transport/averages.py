"""Averages of temperature, energy, pressure and density over a trajectory, with block errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from equipot.units import GPa, fs, g_per_cm3, kB
from equipot.workflows.statistics.blocking import Average, average
from equipot.workflows.statistics.degrees_of_freedom import HeldMotions
from equipot.workflows.statistics.trajectory import Trajectory


def averages(trajectory: Trajectory, skip_ps: float = 0.0) -> dict[str, Average]:
    """Average what a trajectory has of temperature_K, potential_eV, total_eV, pressure_GPa and density_g_cm3.

    Where the log of the run of ``equipot md`` is beside the trajectory, its lines are averaged, as there are more of them and
    they have the pressure.

    Args:
        trajectory: Trajectory, of which the beginning has been skipped.
        skip_ps: The time that was skipped, ps; the log is skipped alike.
    """
    series = _of_frames(trajectory) if trajectory.log is None else _of_log(trajectory, skip_ps)
    return {name: average(values) for name, values in series.items() if len(values) and np.isfinite(values).all()}


def _of_log(trajectory: Trajectory, skip_ps: float) -> dict[str, Float[np.ndarray, " lines"]]:
    from equipot.md import log

    assert trajectory.log is not None
    table = log.read(trajectory.log)
    late = table["time_ps"] >= table["time_ps"][0] + skip_ps - 1e-9
    found = {name: table[name][late] for name in ("temperature_K", "potential_eV", "total_eV", "pressure_GPa")}
    volume = table["volume_A3"][late]
    if all(trajectory.pbc) and (volume > 0).all():
        found["density_g_cm3"] = trajectory.masses.sum() / volume / g_per_cm3
    return found


def _of_frames(trajectory: Trajectory) -> dict[str, Float[np.ndarray, " frames"]]:
    masses = trajectory.masses[:, None]
    held = HeldMotions(trajectory)
    names = ("temperature_K", "potential_eV", "total_eV", "pressure_GPa", "density_g_cm3")
    found: dict[str, list[float]] = {name: [] for name in names}
    for frame in trajectory.checked():
        kinetic = np.nan
        if frame.velocities is not None:
            held.add(frame)
            kinetic = 0.5 * float(np.sum(masses * np.square(frame.velocities, dtype=np.float64))) / fs**2
        energy = np.nan if frame.energy is None else float(frame.energy)
        volume = frame.volume if all(trajectory.pbc) else np.nan
        push = np.nan if frame.stress is None else float(np.trace(frame.stress))
        values = (
            2 * kinetic / kB, energy, energy + kinetic, (2 * kinetic / volume - push) / 3 / GPa,
            masses.sum() / volume / g_per_cm3,
        )  # fmt: skip
        for name, value in zip(names, values, strict=True):
            found[name].append(float(value))
    series = {name: np.array(values) for name, values in found.items()}
    return series | {"temperature_K": series["temperature_K"] / held.free}
