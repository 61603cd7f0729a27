"""Order of polymorphs by energy, or by enthalpy under a pressure, with the uncertainty of the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipot.evaluation import evaluate_each
from equipot.potential import Potential
from equipot.quantities import ENSEMBLE
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.relax import Relaxed


@dataclass(frozen=True)
class Ranking:
    """Relaxed structures of one composition, the most stable first."""

    order: tuple[int, ...]
    """Places of the structures among those given."""
    enthalpies: np.ndarray
    """(structures,) eV per atom above the first, in the order of ``order``."""
    deviations: np.ndarray | None
    """(structures,) standard deviation of these differences, eV per atom; None for a potential without an estimate."""
    chances: np.ndarray | None
    """(structures,) share of the estimate's members in which each structure is the most stable; None without an estimate."""


def rank(potential: Potential, relaxed: Sequence[Relaxed], pressure_GPa: float = 0.0) -> Ranking:
    """Order relaxed structures by enthalpy per atom.

    Differences between members of a committee, or samples of a posterior, tell how sure the order is: errors that all
    structures share cancel in them.

    Raises:
        ValueError: structures of different compositions, whose energies cannot be compared.
    """
    structures = [x.structure for x in relaxed]
    first = composition(structures[0])
    for s in structures[1:]:
        if composition(s) != first:
            raise ValueError(f"{s.name} has another composition than {structures[0].name}: their energies cannot be ranked")
    per_atom = np.array([(x.energy + pressure_GPa * GPa * x.structure.volume) / len(x.structure) for x in relaxed])
    order = np.argsort(per_atom, kind="stable")
    deviations = chances = None
    members = spread(potential, structures)
    if members is not None:
        whole = per_atom[:, None] + members
        differences = whole - whole[order[0]]
        deviations = differences.std(axis=1)[order]
        lowest = np.argmin(whole, axis=0)
        chances = np.array([np.mean(lowest == k) for k in order])
    return Ranking(tuple(order.tolist()), (per_atom - per_atom[order[0]])[order], deviations, chances)


def spread(potential: Potential, structures: Sequence[Structure]) -> np.ndarray | None:
    """Return the energies of the members of the potential's estimate, less their mean: (structures, members), eV per atom."""
    posterior = potential.posterior
    if posterior is None or not posterior.has_spread(ENSEMBLE) or ENSEMBLE not in posterior.method.provides:
        return None
    found = evaluate_each(potential, structures, ("energy", ENSEMBLE.name))
    return np.array([np.asarray(out[ENSEMBLE]) / len(s) for out, s in zip(found, structures, strict=True)])


def composition(structure: Structure) -> tuple[tuple[int, float], ...]:
    """Return the share of each element."""
    numbers, counts = np.unique(structure.numbers, return_counts=True)
    return tuple((int(z), round(float(c) / len(structure), 9)) for z, c in zip(numbers, counts, strict=True))
