"""Fluxes along a trajectory, kept line by line in a file, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from equipot.files import write_atomically
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import fs, kB
from equipot.workflows.statistics.trajectory import Snapshot, Trajectory
from equipot.workflows.transport.heat_flux import UnfoldedFlux, mass_fluxes

AXES = ("x", "y", "z")
TENSOR = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Order of Voigt."""
AT_A_TIME = 20
"""Lines between two writes."""


@dataclass(frozen=True)
class Fluxes:
    """Fluxes along a trajectory."""

    table: Mapping[str, Float[np.ndarray, " samples"]]
    """Columns of the file: time_fs, temperature_K, energy_eV (without E0), volume_A3, potential_x_eVA_fs, ...,
    convective_x_eVA_fs, ..., pressure_xx_eV_A3, ..., momentum_1_x_uA_fs, ..."""
    interval_fs: float
    """Time between samples, fs."""

    @property
    def heat(self) -> Float[np.ndarray, "samples 3"]:
        """Heat flux, eV Å/fs."""
        part = lambda name: np.stack([self.table[f"{name}_{x}_eVA_fs"] for x in AXES], axis=1)
        return part("potential") + part("convective")

    @property
    def momenta(self) -> list[Float[np.ndarray, "samples 3"]]:
        """Momenta of all elements but the last, amu Å/fs."""
        count = sum(name.startswith("momentum_") for name in self.table) // 3
        return [np.stack([self.table[f"momentum_{k}_{x}_uA_fs"] for x in AXES], axis=1) for k in range(1, count + 1)]

    @property
    def pressure(self) -> Float[np.ndarray, "samples 3 3"]:
        """Pressure tensor with the kinetic part, eV/Å^3."""
        xx, yy, zz, yz, xz, xy = (self.table[f"pressure_{ab}_eV_A3"] for ab in TENSOR)
        return np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=1).reshape(-1, 3, 3)


def fluxes_along(
    potential: Potential,
    trajectory: Trajectory,
    every: int,
    path: Path,
    say: Callable[[int], None] = lambda done: None,
) -> Fluxes:
    """Compute the fluxes of every n-th frame of a trajectory; lines that the file has already are not computed again.

    Raises:
        ValueError: a system that does not repeat in three directions, frames without velocities, or what ``UnfoldedFlux``
            refuses.
    """
    if not all(trajectory.pbc):
        raise ValueError(f"{trajectory.name} does not repeat in three directions: it has no conductivity; set heat: null")
    flux = UnfoldedFlux(potential)
    names, done = _kept(path)
    waiting: list[str] = []
    count = 0
    for k, frame in enumerate(trajectory.checked()):
        if k % every:
            continue
        count += 1
        if count <= done:
            continue
        row = _row(flux, trajectory, frame, k * trajectory.interval_fs)
        if not names:
            names = list(row)
            write_atomically(path, (",".join(names) + "\n").encode())
        waiting.append(",".join(repr(float(x)) for x in row.values()) + "\n")
        if len(waiting) == AT_A_TIME:
            _append(path, waiting)
            say(count)
    _append(path, waiting)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    table = np.array(rows[1:], float).reshape(-1, len(names))[:count]
    return Fluxes(dict(zip(names, table.T, strict=True)), every * trajectory.interval_fs)


def _kept(path: Path) -> tuple[list[str], int]:
    """Return names of columns and the number of complete lines of a file; a line that was cut is removed."""
    if not path.exists():
        return [], 0
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    if not whole:
        return [], 0
    os.truncate(path, len(whole))
    lines = whole.decode().splitlines()
    return lines[0].split(","), len(lines) - 1


def _append(path: Path, lines: list[str]) -> None:
    """Append lines to a file, wait until they are on the disk, and empty the list."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())
    lines.clear()


def _row(flux: UnfoldedFlux, trajectory: Trajectory, frame: Snapshot, time_fs: float) -> dict[str, float]:
    """Compute a line of the file."""
    if frame.velocities is None:
        raise ValueError(f"{trajectory.name} has no velocities, which a heat flux needs; write momenta to the trajectory")
    if any(frame.electrons):
        raise ValueError(
            f"{trajectory.name}: charge {frame.electrons[0]:g} e and spin {frame.electrons[1]:g}: heat fluxes are those of "
            "neutral systems without unpaired electrons"
        )
    masses, v = trajectory.masses, np.asarray(frame.velocities, np.float64)
    if 0 < (still := int((v == 0).all(axis=1).sum())) < len(v):
        raise ValueError(
            f"{trajectory.name}: {still} atoms are held at rest, and take up momentum and heat: a conductivity needs a run in "
            "which all atoms move"
        )
    # The centre of mass carries no heat.
    v = v - masses @ v / masses.sum()
    structure = Structure(
        trajectory.numbers, frame.positions, frame.cell, np.array(trajectory.pbc), masses=masses, source=trajectory.name
    )
    found = flux(structure, v)
    kinetic = (masses[:, None] * v).T @ v / fs**2
    pressure = (kinetic - found.virial) / structure.volume
    dof = max(3 * len(masses) - 3, 1)
    row = {
        "time_fs": time_fs, "temperature_K": float(np.trace(kinetic)) / (dof * kB), "energy_eV": found.energy,
        "volume_A3": structure.volume,
    }  # fmt: skip
    row |= {f"potential_{x}_eVA_fs": float(value) for x, value in zip(AXES, found.potential, strict=True)}
    row |= {f"convective_{x}_eVA_fs": float(value) for x, value in zip(AXES, found.convective, strict=True)}
    voigt = pressure[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    row |= {f"pressure_{ab}_eV_A3": float(value) for ab, value in zip(TENSOR, voigt, strict=True)}
    for k, momentum in enumerate(mass_fluxes(trajectory.numbers, masses, v), start=1):
        row |= {f"momentum_{k}_{x}_uA_fs": float(value) for x, value in zip(AXES, momentum, strict=True)}
    return row
