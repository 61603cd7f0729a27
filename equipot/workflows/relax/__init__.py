"""Relax structures: positions and cells, many at once, by L-BFGS, FIRE or Newton's method with exact Hessians."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipot.evaluation import as_structures
from equipot.isolated_atoms import isolated_atom_energy
from equipot.metadata import Metadata
from equipot.potential import Potential
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.relax.batch import System, moved
from equipot.workflows.relax.config import RelaxConfig
from equipot.workflows.relax.fire import FIRE
from equipot.workflows.relax.lbfgs import LBFGS
from equipot.workflows.relax.loop import Program, relaxed_systems
from equipot.workflows.relax.newton import Newton
from equipot.workflows.relax.space_group import change

__all__ = ["FIRE", "LBFGS", "Newton", "RelaxConfig", "Relaxed", "relax", "relax_each"]


@dataclass(frozen=True)
class Relaxed:
    """A structure after its relaxation."""

    index: int
    """Place among the structures that were given."""
    structure: Structure
    """Geometry at the end, with energy, forces and, for a crystal, stress of the potential as labels."""
    converged: bool
    """Whether forces, and stress where the cell changes, are below their limits."""
    reason: str
    """Why not; empty where it is."""
    energy: float
    """Total energy, eV, without the work of a pressure."""
    fmax: float
    """Largest force on an atom, of components that may move, eV/Å."""
    stress_error: float
    """Largest component of stress less target that an allowed strain could relax, GPa; 0 for a cell that stays."""
    evaluations: int
    """Evaluations of energy, forces and stress."""
    products: int
    """Products with the Hessian."""
    group: str
    """Space group that was kept, such as ``Fd-3m (227)``; empty where none was."""
    group_change: str
    """Space groups of a crystal before and after, ``Im-3m (229) to Fm-3m (225)``; empty where they are equal."""
    broken: bool
    """Whether a symmetry was lost that the settings keep: it was too inexact to be found within ``symprec``."""
    trace: np.ndarray
    """(lines, 4): evaluations, energy (with the work of pressure and target stress, without E0, eV), largest force (eV/Å),
    error of the stress (GPa), at some of the evaluations."""

    @property
    def failures(self) -> tuple[str, ...]:
        """What did not come to its end or is not sound, one sentence each."""
        name, told = self.structure.name, () if self.converged else (f"{self.structure.name}: {self.reason}",)
        if not self.broken:
            return told
        remedy = "raise symprec so that the group is found and kept, or set symmetry to false"
        return (*told, f"{name}: its symmetry broke, {self.group_change}; {remedy}")


def relax(
    potential: Potential,
    systems: Any,
    settings: RelaxConfig | None = None,
    *,
    cheaper: Potential | None = None,
    say: Callable[[int, int, str], None] | None = None,
) -> list[Relaxed]:
    """Relax structures to a minimum of the energy, or of the enthalpy under a pressure.

    All structures are relaxed in a few compiled programs, in which others follow as soon as some have converged. Numbers of one
    structure depend on the others by rounding only.

    >>> relax(potential, atoms, RelaxConfig(cell="full", fmax=1e-4))[0].structure.to_ase()

    Args:
        potential: Potential, best in double precision: in single precision forces below 0.001 eV/Å are mostly rounding.
        systems: An ``ase.Atoms``, a ``Structure``, or a list of either. FixAtoms and FixCartesian of ASE are kept.
        settings: None for positions in a fixed cell by L-BFGS.
        cheaper: Potential whose Hessian stands in for that of the potential in ``Newton``, instead of ``settings.cheaper``.
        say: Called with the number of finished structures, that of all, and figures of those at work.

    Returns:
        One for each structure, in their order; what did not converge says so.

    Raises:
        ValueError: an unknown element, a constraint that is not known, or settings that do not fit a structure.
    """
    found = relax_each(potential, systems, settings, cheaper=cheaper, say=say)
    return sorted(found, key=lambda relaxed: relaxed.index)


def relax_each(
    potential: Potential,
    systems: Any,
    settings: RelaxConfig | None = None,
    *,
    cheaper: Potential | None = None,
    say: Callable[[int, int, str], None] | None = None,
) -> Iterator[Relaxed]:
    """Iterate over structures as they are finished, in any order; arguments and errors are those of ``relax``."""
    settings = RelaxConfig() if settings is None else settings
    structures = as_structures(systems)
    if not structures:
        raise ValueError("there are no structures to relax")
    potential.check(structures)
    potentials = [potential]
    if cheaper is not None or settings.cheaper is not None:
        potentials.append(_cheaper(potential, settings) if cheaper is None else cheaper.astype(potential.dtype))
        potentials[1].check(structures)
    # Metadata are static: without them, potentials that differ in their origin share what is compiled.
    bare = tuple(p.replace(metadata=Metadata(), posterior=None) for p in potentials)
    silent: Callable[[int, int, str], None] = lambda done, count, text: None
    for system, reason in relaxed_systems(Program(bare, settings), structures, say or silent):
        yield _answer(potential, structures[system.place], system, reason, settings)


def _cheaper(potential: Potential, settings: RelaxConfig) -> Potential:
    from equipot import published

    assert settings.cheaper is not None
    return published.load(settings.cheaper, dtype=str(potential.dtype))


def _answer(potential: Potential, given: Structure, system: System, reason: str, settings: RelaxConfig) -> Relaxed:
    """Collect what is known of a system that is finished."""
    walk, status = system.walk, system.status
    found = walk.point.found
    e0 = isolated_atom_energy(given.numbers, potential.metadata.isolated_atom_energies(given.head)).sum()
    energy = float(found.interaction[0]) + float(e0)
    labels = {ENERGY: energy, FORCES: np.asarray(found.forces.positions, np.float64)}
    if given.pbc.any() and given.volume > 0:
        labels[STRESS] = np.asarray(found.forces.strain[0], np.float64)
    at = moved(system.structure, walk.point.at)
    trace = np.array(system.trace, np.float64) / [1, 1, 1, GPa]
    changed, lost = change(given, at)
    return Relaxed(
        index=system.place,
        structure=at.replace(labels=labels, source=given.source),
        converged=not reason,
        reason=reason,
        energy=energy,
        fmax=float(walk.point.force[0]),
        stress_error=float(walk.point.excess[0]) / GPa,
        evaluations=system.spent[0] + int(status.evaluations[0]),
        products=system.spent[1] + int(walk.products[0]),
        group=system.limits.group,
        group_change=changed,
        broken=lost and settings.symmetry and not settings.lowers_symmetry,
        trace=trace,
    )
