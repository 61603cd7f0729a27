"""Energies and stresses of a crystal's deformed cells, by a potential."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.evaluation import evaluate
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.constitutive.baselines import averaged
from equipot.workflows.constitutive.deformations import Deformations
from equipot.workflows.constitutive.kinematics import piola_of_cauchy
from equipot.workflows.relax.config import RelaxConfig

TIGHT = RelaxConfig(cell="fixed", fmax=1e-4)
"""How atoms of deformed cells are relaxed unless told otherwise."""


class Labelled(NamedTuple):
    """Deformations whose energies and stresses are known, and those that failed."""

    data: Deformations
    places: np.ndarray
    """Place of each among the deformations that were asked for."""
    failures: tuple[str, ...] = ()
    """Deformations whose atoms did not relax; they are left out."""


def deformed(structure: Structure, gradients: Float[np.ndarray, "n 3 3"]) -> list[Structure]:
    """Deform a crystal: each vector v of cell and positions becomes F v."""
    bare = structure.without_labels()
    return [bare.replace(positions=bare.positions @ f.T, cell=bare.cell @ f.T) for f in gradients]


def label(
    potential: Potential,
    structure: Structure,
    gradients: Float[np.ndarray, "n 3 3"],
    atoms: Literal["relaxed", "affine"] = "relaxed",
    relaxation: RelaxConfig = TIGHT,
) -> Labelled:
    """Compute energies and stresses of a deformed crystal, all cells in one batch.

    Args:
        potential: Potential, best in double precision.
        structure: Crystal in its reference state.
        gradients: Deformation gradients F.
        atoms: ``relaxed`` for the minimum of the energy in each cell, from the atoms' deformed positions, or ``affine`` for
            these positions themselves: the Cauchy-Born rule.
        relaxation: Tolerances of the relaxation; its cell must be fixed.

    Raises:
        ValueError: a structure that does not repeat in three directions, or a relaxation that changes the cell.
    """
    if not structure.pbc.all() or not structure.volume:
        raise ValueError(f"{structure.name} does not repeat in three directions, and so is no material with a constitutive law")
    if relaxation.cell != "fixed":
        raise ValueError(f"cell {relaxation.cell}: atoms are relaxed in cells of given deformations, which stay fixed")
    cells = deformed(structure, np.concatenate([np.eye(3)[None], gradients]))
    failures: tuple[str, ...] = ()
    kept = np.ones(len(cells), bool)
    if atoms == "affine":
        found = evaluate(potential, cells, ("energy", "stress"))
        energies, cauchy = np.asarray(found.energy), np.asarray(found.stress)
    else:
        energies, cauchy, failures = _relaxed(potential, cells, relaxation)
        kept = np.isfinite(energies)
        if not kept[0]:
            raise ValueError(f"the reference did not relax: {failures[0]}")
    index = np.flatnonzero(kept[1:])
    density = (energies[1:] - energies[0])[index] / structure.volume / GPa
    stresses = piola_of_cauchy(cauchy[1:][index] / GPa, gradients[index])
    return Labelled(Deformations(gradients[index], stresses, density), index, failures)


def _relaxed(
    potential: Potential, cells: list[Structure], relaxation: RelaxConfig
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3 3"], tuple[str, ...]]:
    """Relax atoms in fixed cells; return energies (eV) and stresses (eV/Å^3), NaN where one failed, and what failed."""
    from equipot.workflows.relax import relax

    energies, stresses, failures = np.full(len(cells), np.nan), np.full((len(cells), 3, 3), np.nan), []
    for k, x in enumerate(relax(potential, cells, relaxation)):
        if x.converged and x.structure.stress is not None:
            energies[k], stresses[k] = x.energy, x.structure.stress
        else:
            failures.append(f"deformation {k - 1}: {x.reason or 'has no stress'}" if k else f"no deformation: {x.reason}")
    return energies, stresses, tuple(failures)


def reference_stress(potential: Potential, structure: Structure) -> Float[np.ndarray, "3 3"]:
    """Compute the Cauchy stress of a crystal as it is, GPa."""
    return np.asarray(evaluate(potential, structure, ("energy", "stress")).stress)[0] / GPa


def small_strains(size: float) -> Float[np.ndarray, "12 3 3"]:
    """Return stretches I +- e for the six components of a symmetric strain e with entries of ``size``."""
    found = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        e = np.zeros((3, 3))
        e[i, j] = e[j, i] = size
        found += [np.eye(3) + e, np.eye(3) - e]
    return np.array(found)


def elastic_tensor_of(
    data: Deformations, size: float, rotations: Float[np.ndarray, "rotations 3 3"]
) -> Float[np.ndarray, "3 3 3 3"]:
    """Compute the elastic tensor (GPa) of a reference without stress by central differences.

    Args:
        data: Energies and stresses at ``small_strains(size)``, all twelve.
        size: size of the strains.
        rotations: rotations over which the tensor is averaged.
    """
    slopes = (data.stresses[::2] - data.stresses[1::2]) / (2 * size)
    tensor = np.zeros((3, 3, 3, 3))
    for (k, l), slope in zip(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)), slopes, strict=True):
        # A strain with e_kl = e_lk reaches c_ijkl and c_ijlk alike.
        tensor[:, :, k, l] = tensor[:, :, l, k] = slope / (1 if k == l else 2)
    return averaged(tensor, rotations)
