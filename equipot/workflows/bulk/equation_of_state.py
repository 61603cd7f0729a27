"""Equation of state of a crystal: energies of relaxed cells against their volumes, and fits."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipot.evaluation import one_structure
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.bulk.config import EquationOfState
from equipot.workflows.journal import Journal
from equipot.workflows.relax import RelaxConfig
from equipot.workflows.relax.kept import Say, relax_kept


@dataclass(frozen=True)
class VolumeCurve:
    """Energies against volumes of one cell, and what a fit says."""

    volumes: np.ndarray
    """(points,) Å^3 of the cell."""
    energies: np.ndarray
    """(points,) eV of the cell."""
    pressures: np.ndarray
    """(points,) GPa, of the potential's own stress, to compare with the slope of the fit."""
    equation: str
    """Equation that was fitted."""
    volume: float
    """Of the minimum, Å^3."""
    energy: float
    """At the minimum, eV."""
    bulk_modulus: float
    """At the minimum, GPa."""
    derivative: float
    """Derivative of the bulk modulus by the pressure."""
    residual: float
    """Root mean square of what the fit leaves, eV."""
    failures: tuple[str, ...] = ()
    """Volumes that did not relax, or a minimum that is none."""

    def fitted(self, volumes: np.ndarray) -> np.ndarray:
        """Compute the energy (eV) of the fit at volumes (Å^3)."""
        from ase.eos import birch, birchmurnaghan, murnaghan, pouriertarantola, vinet

        known = {f.__name__: f for f in (birch, birchmurnaghan, murnaghan, pouriertarantola, vinet)}
        return known[self.equation](volumes, self.energy, self.bulk_modulus * GPa, self.derivative, self.volume)


def equation_of_state(
    potential: Potential,
    structure: Any,
    settings: EquationOfState | None = None,
    relaxation: RelaxConfig | None = None,
    journal: Journal | None = None,
    say: Say | None = None,
) -> VolumeCurve:
    """Compute energies of a relaxed crystal at other volumes and fit an equation of state.

    At each volume, shape and atoms are relaxed (``cell: shape``), so that the energies are those at fixed volume; all volumes
    are relaxed in one batched program.

    Args:
        potential: Potential.
        structure: Crystal about whose volume the others lie, best relaxed; ``ase.Atoms`` or ``Structure``.
        settings: Volumes and equation.
        relaxation: Tolerances of the relaxation; cell and pressure are not used.
        journal: Where finished volumes are kept; None to keep none.
        say: Progress, see ``relax``.

    Raises:
        ValueError: a structure that does not repeat in three directions, or several structures.
    """
    settings = settings or EquationOfState()
    structure = one_structure(structure, "an equation of state is")
    if not structure.pbc.all() or not structure.volume:
        raise ValueError(f"{structure.name} does not repeat in three directions, and so has no volume to change")
    base = relaxation or RelaxConfig(fmax=1e-4)
    inner = dataclasses.replace(base, cell="shape", pressure_GPa=0.0, stress_GPa=None)
    ratios = 1 + np.linspace(-settings.span, settings.span, settings.points)
    stretched = [scaled(structure, ratio) for ratio in ratios]
    found = relax_kept(journal or Journal(), "volume", potential, stretched, inner, say)
    failures = tuple(f"volume {r:.3f} of the first: {x.reason}" for r, x in zip(ratios, found, strict=True) if not x.converged)
    volumes = np.array([x.structure.volume for x in found])
    energies = np.array([x.energy for x in found])
    pressures = np.array([-np.trace(x.structure.stress) / 3 / GPa if x.structure.stress is not None else np.nan for x in found])
    fit, inside = fitted(volumes, energies, settings.fit)
    if not inside:
        failures = (*failures, "the energies have no minimum within the volumes: relax the cell first, or widen span")
    return VolumeCurve(volumes, energies, pressures, settings.fit, *fit, failures)


def scaled(structure: Structure, ratio: float) -> Structure:
    """Return a structure with its volume multiplied by a ratio, at the same fractional coordinates."""
    factor = ratio ** (1 / 3)
    return structure.without_labels().replace(positions=structure.positions * factor, cell=structure.cell * factor)


def fitted(volumes: np.ndarray, energies: np.ndarray, equation: str) -> tuple[tuple[float, float, float, float, float], bool]:
    """Fit an equation of ``ase.eos``.

    Returns:
        Volume (Å^3), energy (eV), bulk modulus (GPa) and its derivative by the pressure at the minimum, and the root mean
        square of the residuals (eV); NaN where the fit fails. And whether the minimum lies within the volumes.
    """
    from ase.eos import EquationOfState as Fit

    lost = (np.nan,) * 5
    lowest = int(np.argmin(energies))
    if lowest in (0, len(energies) - 1) or not np.isfinite(energies).all():
        return lost, False
    fit = Fit(volumes, energies, eos=equation)
    with warnings.catch_warnings():
        # Whether the minimum is inside is told below.
        warnings.simplefilter("ignore")
        try:
            volume, energy, modulus = fit.fit(warn=False)
        except (RuntimeError, ValueError):
            return lost, False
    slope = float(fit.eos_parameters[2])
    residual = np.sqrt(np.mean((fit.func(volumes, *fit.eos_parameters) - energies) ** 2))
    inside = bool(volumes[0] < volume < volumes[-1])
    return (float(volume), float(energy), float(modulus) / GPa, slope, float(residual)), inside
