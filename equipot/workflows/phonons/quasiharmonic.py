"""The quasi-harmonic approximation: phonons at several volumes, and the volume of least free energy at each temperature."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot import units
from equipot.console import Console
from equipot.evaluation import evaluate
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.phonons.config import STRESS, PhononsConfig, QHAConfig
from equipot.workflows.phonons.harmonic import harmonic
from equipot.workflows.phonons.spectrum import temperatures_of

CUBIC = 195
"""Number of the first cubic space group: from there on the volume is the whole shape of the cell."""


@dataclass(frozen=True)
class QuasiHarmonic:
    """Thermal properties at constant pressure, of a primitive cell."""

    volume_grid: Float[np.ndarray, " volumes"]
    """Volumes of the phonon calculations, Å^3."""
    energy: Float[np.ndarray, " volumes"]
    """Energy without vibrations at each volume, eV."""
    lowest_frequency: Float[np.ndarray, " volumes"]
    """Lowest frequency of the mesh at each volume, THz; negative for an imaginary mode."""
    temperature: Float[np.ndarray, " temperatures"]
    """K."""
    volume: Float[np.ndarray, " temperatures"]
    """Volume of least free energy, Å^3."""
    thermal_expansion: Float[np.ndarray, " temperatures"]
    """(1/V) dV/dT, 1/K; zero at the first temperature, where no difference can be taken."""
    bulk_modulus: Float[np.ndarray, " temperatures"]
    """Isothermal, GPa."""
    gibbs_energy: Float[np.ndarray, " temperatures"]
    """eV."""
    entropy: Float[np.ndarray, " temperatures"]
    """J/K/mol."""
    heat_capacity: Float[np.ndarray, " temperatures"]
    """At constant pressure, J/K/mol."""
    gruneisen: Float[np.ndarray, " temperatures"]
    """Thermodynamic Grueneisen parameter."""
    failures: tuple[str, ...]
    """Volumes that were not relaxed or have imaginary modes, and temperatures whose volume is outside of the range."""


class _Point(NamedTuple):
    """One volume."""

    structure: Structure
    phonon: Any
    energy: float
    lowest: float
    failures: tuple[str, ...]


def quasi_harmonic(
    potential: Potential,
    primitive: Structure,
    cell: tuple[Int[np.ndarray, "3 3"], int],
    settings: PhononsConfig,
    console: Console,
) -> QuasiHarmonic:
    """Compute thermal properties at constant pressure from phonons at several volumes.

    Energies are those of cells relaxed at a fixed volume: positions, and of cells that are not cubic also the shape.

    Args:
        potential: Potential in double precision.
        primitive: relaxed primitive cell.
        cell: supercell matrix, and number of the space group.
        settings: with ``qha``.
        console: Progress.
    """
    from phonopy import run_qha

    how = settings.qha
    assert how is not None, "asked for"
    points = []
    for share in np.linspace(how.smallest, how.largest, how.volumes):
        points.append(_at_volume(potential, _scaled(primitive, float(share)), cell, settings))
        console.say(f"volume {points[-1].structure.volume:.3f} Å^3 ({share:.3f}): lowest frequency {points[-1].lowest:.3f} THz")
    temperatures = temperatures_of(settings)
    # Finite differences by the temperature take one point more than they give.
    temperatures = np.append(temperatures, temperatures[-1] + settings.temperature_step_K)
    with warnings.catch_warnings():
        # Of lattice parameters outside of the range, or of none at all: volumes are what is taken, and told of below.
        warnings.simplefilter("ignore", UserWarning)
        found = run_qha(
            [point.phonon for point in points], temperatures, [point.energy for point in points], mesh=settings.mesh_length,
            pressure=how.pressure_GPa, eos=how.equation, exclude_gamma_acoustic=True,
        )  # fmt: skip
    return _result(points, found, how)


def _scaled(primitive: Structure, share: float) -> Structure:
    """Scale a cell and its positions to a share of the volume."""
    factor = share ** (1 / 3)
    return primitive.replace(cell=primitive.cell * factor, positions=primitive.positions * factor)


def _at_volume(
    potential: Potential, structure: Structure, cell: tuple[Int[np.ndarray, "3 3"], int], settings: PhononsConfig
) -> _Point:
    """Relax a cell at its volume, and compute its force constants."""
    from equipot.workflows.relax import RelaxConfig, relax

    matrix, number = cell
    failures: tuple[str, ...] = ()
    how = RelaxConfig(
        cell="fixed" if number >= CUBIC else "shape",
        fmax=settings.fmax,
        smax_GPa=STRESS,
        symmetry=True,
        max_steps=settings.max_steps,
    )
    (found,) = relax(potential, [structure], how)
    if not found.converged:
        failures = (f"volume {found.structure.volume:.3f} Å^3 is not relaxed: {found.reason}",)
    crystal = harmonic(potential, found.structure, matrix, settings)
    lowest = float(np.asarray(crystal.phonon.run_mesh(settings.mesh_length).frequencies).min())
    if lowest < -settings.imaginary_tolerance_THz:
        failures += (f"volume {found.structure.volume:.3f} Å^3 has imaginary modes, down to {abs(lowest):.3f}i THz",)
    energy = float(np.asarray(evaluate(potential, [found.structure], ("energy",)).energy)[0])
    return _Point(found.structure, crystal.phonon, energy, lowest, failures)


def _result(points: Sequence[_Point], found: Any, how: QHAConfig) -> QuasiHarmonic:
    """Convert phonopy's result, and say where it is not to be trusted."""
    failures = [failure for point in points for failure in point.failures]
    temperature, volume, grid = np.array(found.temperatures), np.array(found.equilibrium_volumes), np.array(found.volumes)
    # A volume that is not a number is outside, too.
    outside = ~((volume >= grid.min()) & (volume <= grid.max()))
    if outside.any():
        which = temperature[outside]
        failures.append(
            f"the volume of least free energy leaves the range of volumes, {grid.min():.3f} to {grid.max():.3f} Å^3, at "
            f"{which.min():g} to {which.max():g} K: choose a wider range, qha.smallest {how.smallest:g} and qha.largest "
            f"{how.largest:g}, or stop below"
        )
    per_mole = 1e3 / units.kJ_per_mol
    return QuasiHarmonic(
        grid, np.array([point.energy for point in points]), np.array([point.lowest for point in points]), temperature, volume,
        np.array(found.thermal_expansion), np.array(found.bulk_moduli) / units.GPa, np.array(found.gibbs_free_energies),
        np.array(found.entropy_temperature) * per_mole, np.array(found.heat_capacity_P.heat_capacities) * per_mole,
        np.array(found.gruneisen_parameters), tuple(failures),
    )  # fmt: skip
