"""Fit a linear two-body force field to forces: crude, but enough to tell sign and unit of the other labels.

E = sum over pairs of c_k b_k(r) is linear in c, and so are the forces and the virial dE/d(strain). Coefficients fitted to the
forces alone predict stresses and energy differences that correlate with right labels: a slope near -1 means a wrong sign, a
slope near 160 a stress in GPa.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equipot.neighbors import neighbor_list
from equipot.quantities import FORCES
from equipot.structure import Structure

CUTOFF = 5.5
"""Cutoff of the force field, Å."""
BASIS = 10
"""Number of basis functions per pair of elements."""
RIDGE = 1e-6
"""Regularisation of the normal matrix with unit diagonal."""
ENOUGH = 3
"""Force components needed for each coefficient."""


class Features(NamedTuple):
    """Derivatives of energy, forces and virial of one frame with respect to the coefficients."""

    energy: np.ndarray
    """(coefficients,)"""
    forces: np.ndarray
    """(atoms, 3, coefficients)"""
    virial: np.ndarray
    """(3, 3, coefficients)"""


def basis(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate (1 - r/c)^(k+2) for k = 1..BASIS, smooth at the cutoff c, and the slopes: (pairs,) Å -> (pairs, BASIS) each."""
    x = 1 - r[:, None] / CUTOFF
    k = np.arange(1, BASIS + 1) + 2
    return x**k, -k * x ** (k - 1) / CUTOFF


def features(structure: Structure, pairs: dict[tuple[int, int], int]) -> Features:
    """Compute the features of one frame; ``pairs`` maps pairs of elements (Z, Z), Z ascending, to 0, 1, ..."""
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, CUTOFF)
    vectors = structure.positions[edges.neighbors] + edges.shifts @ structure.cell - structure.positions[edges.centers]
    r = np.linalg.norm(vectors, axis=1)
    value, slope = basis(r)
    z = np.sort(structure.numbers[np.stack([edges.centers, edges.neighbors], 1)], axis=1)
    column = np.zeros(len(r), int)
    for (a, b), number in pairs.items():
        column[(z[:, 0] == a) & (z[:, 1] == b)] = number
    n, width = len(structure), BASIS * len(pairs)
    energy, forces, virial = np.zeros(width), np.zeros((n, 3, width)), np.zeros((3, 3, width))
    unit = vectors / r[:, None]
    for pair in np.unique(column):
        mine, place = column == pair, slice(pair * BASIS, (pair + 1) * BASIS)
        energy[place] = value[mine].sum(0) / 2
        np.add.at(forces[:, :, place], edges.centers[mine], unit[mine, :, None] * slope[mine, None, :])
        virial[:, :, place] = np.einsum("ei,ej,ek->ijk", unit[mine], vectors[mine], slope[mine]) / 2
    return Features(energy, forces, virial)


class PairFit(NamedTuple):
    """Predictions of a two-body fit to the forces of some frames."""

    correlation: float
    """Correlation of fitted and labelled forces."""
    held_out: float
    """Correlation of labelled forces and forces of a fit to the other half of the frames."""
    energies: np.ndarray
    """(frames,) energies up to a constant for each composition, eV."""
    virials: np.ndarray
    """(frames, 3, 3) virials dE/d(strain), eV."""
    errors: np.ndarray
    """(frames,) standard error (norm, eV) of the virial without its trace, from the residual of the forces."""


def fit(structures: Sequence[Structure]) -> PairFit | None:
    """Fit a two-body force field to the forces of some frames by least squares.

    Returns:
        Predictions of the fit; None if there are too few forces for the number of coefficients.
    """
    elements = sorted({int(z) for s in structures for z in s.numbers})
    pairs = {pair: k for k, pair in enumerate((a, b) for a in elements for b in elements if a <= b)}
    width = BASIS * len(pairs)
    if 3 * sum(map(len, structures)) < ENOUGH * width:
        return None
    found = [features(s, pairs) for s in structures]
    rows = [f.forces.reshape(-1, width) for f in found]
    labels = [s.labels[FORCES].reshape(-1) for s in structures]
    normals = np.array([r.T @ r for r in rows])
    rights = np.array([r.T @ y for r, y in zip(rows, labels, strict=True)])
    c, covariance = _solve(normals.sum(0), rights.sum(0))
    halves = [_solve(normals[start::2].sum(0), rights[start::2].sum(0))[0] for start in (0, 1)]
    labelled = np.concatenate(labels)
    fitted = np.concatenate([r @ c for r in rows])
    unseen = np.concatenate([r @ halves[1 - k % 2] for k, r in enumerate(rows)])
    variance = float(np.mean((labelled - fitted) ** 2))
    traceless = [f.virial - np.einsum("iik->k", f.virial) * np.eye(3)[:, :, None] / 3 for f in found]
    errors = [np.sqrt(variance * max(float(np.einsum("ijk,kl,ijl->", v, covariance, v)), 0.0)) for v in traceless]
    return PairFit(
        _correlation(fitted, labelled),
        _correlation(unseen, labelled),
        np.array([f.energy @ c for f in found]),
        np.array([f.virial @ c for f in found]),
        np.array(errors),
    )


def _solve(normal: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve regularised least squares: coefficients, and their covariance divided by the variance of the residual."""
    size = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    inverse = np.linalg.inv(normal / np.outer(size, size) + RIDGE * np.eye(len(size)))
    return inverse @ (right / size) / size, inverse / np.outer(size, size)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the correlation about zero, a.b / (|a| |b|)."""
    return float(np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))
