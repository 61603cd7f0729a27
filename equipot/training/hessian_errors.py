"""Errors of Hessians: of elements, eigenvalues and harmonic frequencies of whole matrices, and of products with directions."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from equipot import hessian_labels, units
from equipot.rigid_motions import masses_of, rigid_motions
from equipot.structure import Structure

WAVENUMBER = 2 * math.pi * units.per_cm / units.planck
"""Angular frequency of 1 cm^-1 in sqrt(eV/amu)/Å."""
NAMES = {
    "elements": "hessian_{}",
    "eigenvalues": "hessian_eigenvalue_{}",
    "frequencies": "frequency_{}_per_cm",
    "products": "hessian_product_{}",
}
"""Templates of the names of errors; MAE and RMSE are in eV/Å^2, of frequencies in cm^-1."""
LINES = {
    "elements": ("hessian", "eV/Å^2"),
    "eigenvalues": ("hessian eigenvalues", "eV/Å^2"),
    "frequencies": ("harmonic frequencies", "cm^-1"),
    "products": ("hessian products", "eV/Å^2"),
}
"""Label and unit of each error in printed tables."""


def frequencies(structure: Structure, hessian: Float[np.ndarray, "n 3 n 3"]) -> Float[np.ndarray, " modes"]:
    """Compute harmonic frequencies (cm^-1), ascending, without the rigid motions; imaginary ones are negative.

    They are the roots of the eigenvalues of P M^-1/2 H M^-1/2 P, where P projects on what is orthogonal to the mass-weighted
    translations and, of an isolated system, rotations, as W. H. Miller, N. C. Handy and J. E. Adams do, J. Chem. Phys. 72, 99
    (1980), but for the path: so they are defined for any geometry, not of minima alone.
    """
    root = np.repeat(np.sqrt(masses_of(structure)), 3)
    weighted = hessian.reshape(len(root), -1) / root / root[:, None]
    rigid = rigid_motions(structure)
    # Within the orthogonal complement, no eigenvalue of a rigid motion has to be told from a soft mode.
    inner = np.linalg.svd(rigid, full_matrices=True)[2][len(rigid) :]
    squares = np.linalg.eigvalsh(inner @ ((weighted + weighted.T) / 2) @ inner.T)
    return np.sign(squares) * np.sqrt(np.abs(squares)) / WAVENUMBER


def hessian_errors(reference: Structure, label: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Compute prediction less reference for a label of a Hessian, by the keys of ``NAMES``.

    Of a whole matrix these are errors of its elements, of its eigenvalues and of the harmonic frequencies, sorted; of products
    those of components (eV/Å^2) with directions of the length sqrt(3 atoms), of which the expected square is 3 atoms times that
    of an element.

    Args:
        reference: The structure.
        label: Its label.
        predicted: Hessian of the potential, in the form of the label.
    """
    difference = hessian_labels.compared(predicted) - hessian_labels.compared(label)
    if not hessian_labels.is_whole(label):
        return {"products": difference}
    square = lambda matrix: (matrix + matrix.transpose(2, 3, 0, 1)).reshape(3 * len(matrix), -1) / 2
    return {
        "elements": difference,
        "eigenvalues": np.linalg.eigvalsh(square(predicted)) - np.linalg.eigvalsh(square(label)),
        "frequencies": frequencies(reference, predicted) - frequencies(reference, label),
    }
