"""Stress of a crystal that is pulled until it fails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipot.evaluation import one_structure
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.bulk.config import Tension
from equipot.workflows.journal import Journal
from equipot.workflows.relax import RelaxConfig
from equipot.workflows.relax.config import VOIGT
from equipot.workflows.relax.kept import Say, relax_kept

DROP = 0.5
"""Share of the largest stress so far below which the crystal has failed."""


@dataclass(frozen=True)
class StressStrain:
    """Stress along a direction against the strain, with all other components of the stress relaxed."""

    direction: str
    strains: np.ndarray
    """(steps + 1,) engineering strains, the first of them zero."""
    stresses: np.ndarray
    """(steps + 1,) Cauchy stress along the direction, GPa."""
    energies: np.ndarray
    """(steps + 1,) eV of the cell."""
    structures: tuple[Structure, ...]
    """Relaxed cells."""
    failed_at: float | None
    """Strain at which the stress fell below half of its largest value; None where it did not."""
    failures: tuple[str, ...] = ()
    """Steps that did not relax."""

    @property
    def strength(self) -> float:
        """Largest stress before the failure, GPa: the ideal strength of the cell."""
        until = len(self.strains) if self.failed_at is None else int(np.argmax(self.strains == self.failed_at)) + 1
        return float(self.stresses[np.argmax(np.abs(self.stresses[:until]))])


def stress_strain(
    potential: Potential,
    structure: Any,
    settings: Tension | None = None,
    relaxation: RelaxConfig | None = None,
    journal: Journal | None = None,
    say: Say | None = None,
) -> StressStrain:
    """Strain a crystal step by step along a Cartesian axis; each step begins from the relaxed cell of the last.

    The symmetry of the unstrained cell is not kept, so that instabilities which the cell has room for can show.

    Args:
        potential: Potential.
        structure: Relaxed crystal, ``ase.Atoms`` or ``Structure``; a cell of a few atoms shows few instabilities.
        settings: Direction and steps.
        relaxation: Tolerances; cell, pressure and symmetry are not used.
        journal: Where finished steps are kept; None to keep none.
        say: Called with the number of finished steps, that of all, and the strain.

    Raises:
        ValueError: a structure that does not repeat in three directions, or several structures.
    """
    settings, journal = settings or Tension(), journal or Journal()
    axis = VOIGT.index(settings.direction)
    free = tuple(name for name in VOIGT if name != settings.direction)
    base = relaxation or RelaxConfig(fmax=1e-3)
    inner = dataclasses.replace(base, cell="full", strains=free, pressure_GPa=0.0, stress_GPa=None, symmetry=False)
    grid = np.linspace(0, settings.span, settings.steps + 1)
    structure = one_structure(structure, "a stress-strain curve is")
    if not structure.pbc.all() or not structure.volume:
        raise ValueError(f"{structure.name} does not repeat in three directions, and so has no stress to be measured")
    at, found, failures, before = structure.without_labels(), [], [], 0.0
    for k, strain in enumerate(grid):
        turn = np.eye(3)
        turn[axis, axis] = (1 + strain) / (1 + before)
        start = at.replace(positions=at.positions @ turn, cell=at.cell @ turn)
        (relaxed,) = relax_kept(journal, f"strain step {k}", potential, [start], inner)
        if say is not None:
            say(k + 1, len(grid), f"strain {strain:.3f}")
        found.append(relaxed)
        if not relaxed.converged:
            failures.append(f"strain {strain:.3f}: {relaxed.reason}")
            break
        at, before = relaxed.structure.without_labels(), strain
    stresses = np.array([np.nan if x.structure.stress is None else x.structure.stress[axis, axis] / GPa for x in found])
    strains = grid[: len(found)]
    return StressStrain(
        settings.direction, strains, stresses, np.array([x.energy for x in found]), tuple(x.structure for x in found),
        failure(strains, stresses), tuple(failures),
    )  # fmt: skip


def failure(strains: np.ndarray, stresses: np.ndarray) -> float | None:
    """Return the first strain at which the stress is below ``DROP`` of its largest size so far; None where there is none."""
    largest = np.maximum.accumulate(np.abs(stresses))
    # A stress that has not begun to grow cannot fall.
    fallen = (np.abs(stresses) < DROP * largest) & (largest > 0.1 * np.nanmax(largest, initial=0))
    return float(strains[np.argmax(fallen)]) if fallen.any() else None
