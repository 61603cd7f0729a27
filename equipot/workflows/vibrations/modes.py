"""Normal modes of a structure, with translations and rotations projected out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot import units
from equipot.rigid_motions import masses_of, rigid_motions, translations
from equipot.structure import Structure


@dataclass(frozen=True)
class NormalModes:
    """Normal modes, in the order of their frequencies, imaginary ones first."""

    frequencies: Float[np.ndarray, " modes"]
    """THz; imaginary frequencies are negative."""
    displacements: Float[np.ndarray, "modes atoms 3"]
    """Displacements of the atoms by one unit of the mass-weighted normal coordinate: eigenvector / sqrt(mass), 1/sqrt(amu)."""
    reduced_masses: Float[np.ndarray, " modes"]
    """amu: one over the squared norm of the displacements."""
    removed: int
    """Number of translations, rotations and fixed components projected out."""
    residual: float
    """Largest frequency (THz), in size, of the translations and rotations before they were projected out: zero at a minimum."""

    @property
    def wavenumbers(self) -> Float[np.ndarray, " modes"]:
        """1/cm; imaginary ones are negative."""
        return self.energies / units.per_cm

    @property
    def energies(self) -> Float[np.ndarray, " modes"]:
        """Energies h nu, eV; imaginary ones are negative."""
        return units.planck * units.THz * self.frequencies


def normal_modes(
    hessian: Float[np.ndarray, "atoms 3 atoms 3"], structure: Structure, free: Float[np.ndarray, "free dims"] | None = None
) -> NormalModes:
    """Diagonalise the mass-weighted Hessian in the space without translations and rotations.

    Args:
        hessian: d^2E/dr dr, eV/Å^2; only the symmetric part counts.
        structure: positions and masses.
        free: orthonormal rows of mass-weighted motions to project out; None for those of ``free_motions``.
    """
    masses = masses_of(structure)
    root = np.repeat(np.sqrt(masses), 3)
    n = len(root)
    flat = hessian.reshape(n, n)
    weighted = (flat + flat.T) / 2 / np.outer(root, root)
    free = free_motions(structure) if free is None else free
    # The rows of V^T beyond the rank span everything that is no free motion.
    _, _, basis = np.linalg.svd(free, full_matrices=True)
    inner = basis[len(free) :]
    values, vectors = np.linalg.eigh(inner @ weighted @ inner.T)
    moves = (vectors.T @ inner) / root
    costless = np.zeros((0, n)) if structure.fixed is not None else free
    residual = frequencies_of(np.linalg.eigvalsh(costless @ weighted @ costless.T))
    heavy = 1 / np.sum(moves**2, axis=1) if len(moves) else np.zeros(0)
    lost = float(np.abs(residual).max(initial=0.0))
    return NormalModes(frequencies_of(values), moves.reshape(-1, len(structure), 3), heavy, len(free), lost)


def frequencies_of(values: Float[np.ndarray, " modes"]) -> Float[np.ndarray, " modes"]:
    """Convert eigenvalues of the mass-weighted Hessian (eV/Å^2/amu) to frequencies (THz), negative for negative eigenvalues."""
    return np.sign(values) * np.sqrt(np.abs(values)) / (2 * np.pi) / units.THz


def free_motions(structure: Structure) -> Float[np.ndarray, "free dims"]:
    """Return an orthonormal basis of the motions that are no vibrations, mass-weighted: (motions, 3 atoms).

    Fixed components of the positions where there are any; else translations, and for an isolated structure rotations, of which
    a linear molecule has two and an atom none. A system that repeats, or one in an electric field, has no free rotations.
    """
    if structure.fixed is not None:
        return np.eye(3 * len(structure))[structure.fixed.reshape(-1)]
    return rigid_motions(structure) if turns_freely(structure) else translations(structure)


def turns_freely(structure: Structure) -> bool:
    """Whether rotations cost no energy: of an isolated structure without an electric field and without fixed atoms."""
    return not (structure.pbc.any() or structure.field.any() or structure.fixed is not None)
