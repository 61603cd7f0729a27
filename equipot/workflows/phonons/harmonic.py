"""The harmonic crystal: force constants in phonopy's hands, made symmetric after their faults are measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.force_constants import Checks, check
from equipot.workflows.phonons.cell import as_structure, phonopy_atoms, shortest_vector
from equipot.workflows.phonons.config import PhononsConfig
from equipot.workflows.phonons.polar import Polar, nac_parameters, polar_response

DECAYED = 1e-3
"""Share of the largest force constant that is left at the boundary of a supercell that is large enough."""


class HarmonicCrystal(NamedTuple):
    """A crystal with its force constants."""

    primitive: Structure
    """Primitive cell; its atoms are those of ``phonon.primitive``, in their order."""
    phonon: Any
    """``phonopy.Phonopy`` with symmetric force constants, and the non-analytic term where there is one."""
    checks: Checks
    """Faults of the force constants before they were made symmetric."""
    polar: Polar | None
    """Born effective charges and dielectric tensor; None for no splitting of LO and TO modes."""
    notes: tuple[str, ...]
    """What users should know, one sentence each."""


def harmonic(
    potential: Potential, primitive: Structure, matrix: Int[np.ndarray, "3 3"], settings: PhononsConfig
) -> HarmonicCrystal:
    """Compute the force constants of a crystal in a supercell.

    Args:
        potential: Potential in double precision.
        primitive: standard primitive cell.
        matrix: vectors of the supercell as counts of primitive vectors, in columns.
        settings: how force constants are computed, and what of charges.

    Raises:
        ValueError: see ``force_constants.exact_rows``.
    """
    from phonopy import Phonopy

    atoms = phonopy_atoms(primitive)
    phonon = Phonopy(atoms, supercell_matrix=matrix, primitive_matrix=np.eye(3))
    supercell = as_structure(phonon.supercell, primitive)
    rows = settings.force_constants.rows(potential, supercell, phonon)
    checks = check(rows, pair_distances(phonon), shortest_vector(phonon.supercell.cell) / 2)
    phonon.force_constants = rows
    phonon.symmetrize_force_constants(level=2, show_drift=False)
    polar, notes = polar_response(potential, primitive, atoms, settings)
    if polar is not None:
        phonon.nac_params = nac_parameters(polar)
        notes = (*notes, f"LO-TO splitting from {polar.origin}")
    if checks.boundary > DECAYED:
        notes = (*notes, not_decayed(checks))
    return HarmonicCrystal(primitive, phonon, checks, polar, notes)


def not_decayed(checks: Checks) -> str:
    """Say that a supercell is too small."""
    return (
        f"force constants at {checks.boundary_distance:.1f} Å, near the boundary of the supercell, are "
        f"{checks.boundary:.1%} of the largest between neighbours: the supercell is small; increase "
        "supercell_length until frequencies do not change"
    )


def pair_distances(phonon: Any) -> Float[np.ndarray, "primitive atoms"]:
    """Compute the distance (Å) from each primitive atom to the nearest image of each atom of the supercell."""
    vectors, count = phonon.primitive.get_smallest_vectors()
    # Of each pair, the first of the equally near images; vectors are in primitive vectors.
    nearest = vectors[count[:, :, 1]]
    return np.linalg.norm(nearest @ phonon.primitive.cell, axis=-1).T
