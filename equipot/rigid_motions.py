"""Translations and rotations of a structure as a whole, in coordinates weighted by masses, and which of them move no atom."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from equipot.structure import Structure

LINEAR = 1e-3
"""Size of a rotation over that of the largest below which the rotation moves no atom: about the axis of a linear molecule."""


def masses_of(structure: Structure) -> Float[np.ndarray, " atoms"]:
    """Return the masses of the atoms, amu: the structure's own, else the standard ones of ASE.

    Raises:
        ValueError: a mass that is not positive.
    """
    from ase.data import atomic_masses

    masses = atomic_masses[structure.numbers] if structure.masses is None else structure.masses
    if not (masses > 0).all():
        raise ValueError(
            f"{structure.name}: the mass of atom {int(np.argmin(masses))} is {masses.min():g} amu; give it a positive one"
        )
    return np.asarray(masses)


def translations(structure: Structure) -> Float[np.ndarray, "3 dims"]:
    """Return orthonormal mass-weighted translations along the Cartesian axes, (3, 3 atoms)."""
    root = np.sqrt(masses_of(structure))[:, None]
    return np.stack([(root * axis).reshape(-1) for axis in np.eye(3)]) / np.linalg.norm(root)


def rotations(structure: Structure) -> tuple[Float[np.ndarray, " rotations"], Float[np.ndarray, "rotations dims"]]:
    """Compute moments of inertia (amu Å^2) and orthonormal mass-weighted rotations about the centre of mass.

    There are three of them, two of a linear molecule and none of an atom: see ``LINEAR``.
    """
    masses = masses_of(structure)
    centred = structure.positions - masses @ structure.positions / masses.sum()
    turns = np.stack([(np.sqrt(masses)[:, None] * np.cross(axis, centred)).reshape(-1) for axis in np.eye(3)])
    _, sizes, rows = np.linalg.svd(turns, full_matrices=False)
    moving = sizes > LINEAR * sizes.max()
    return sizes[moving] ** 2, rows[moving]


def rigid_motions(structure: Structure) -> Float[np.ndarray, "motions dims"]:
    """Return an orthonormal basis of the mass-weighted motions that keep a structure's shape, (motions, 3 atoms).

    These are translations and, where nothing repeats, rotations.
    """
    if structure.pbc.any():
        return translations(structure)
    return np.concatenate([translations(structure), rotations(structure)[1]])
