"""A linear two-body force field, fitted to forces: crude, but enough to tell the sign and unit of the other labels.

E = sum over pairs of c_k b_k(r) is linear in c, and so are its forces and its virial dE/d(strain). Coefficients fitted to the
forces alone predict stresses and energy differences that correlate with the labels when those are right: a slope near -1
means a wrong sign, near 160 that somebody wrote GPa.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equipot.neighbors import neighbor_list
from equipot.structure import Structure

CUTOFF = 5.5
"""Å."""
BASIS = 10
RIDGE = 1e-6
ENOUGH = 3
"""Force components needed for each coefficient."""


class Features(NamedTuple):
    """Derivatives of one frame's energy with respect to the coefficients."""

    energy: np.ndarray
    """(coefficients,)"""
    forces: np.ndarray
    """(atoms, 3, coefficients)"""
    virial: np.ndarray
    """(3, 3, coefficients)"""


def basis(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, BASIS) functions (1 - r/c)^(k+2) for k = 1..BASIS, smooth at the cutoff and steeper inside, and their slopes."""
    x = 1 - r[:, None] / CUTOFF
    k = np.arange(1, BASIS + 1) + 2
    return x**k, -k * x ** (k - 1) / CUTOFF


def features(structure: Structure, pairs: dict[tuple[int, int], int]) -> Features:
    """Of one frame; ``pairs`` numbers the pairs of elements."""
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
    """Of fitted and labelled forces."""
    energies: np.ndarray
    """(frames,) eV, up to a constant for each composition."""
    virials: np.ndarray
    """(frames, 3, 3) dE/d(strain), eV."""


def fit(structures: Sequence[Structure]) -> PairFit | None:
    """Least squares on the forces of all frames; None where they are too few for so many coefficients."""
    elements = sorted({int(z) for s in structures for z in s.numbers})
    pairs = {pair: k for k, pair in enumerate((a, b) for a in elements for b in elements if a <= b)}
    width = BASIS * len(pairs)
    if 3 * sum(map(len, structures)) < ENOUGH * width:
        return None
    found = [features(s, pairs) for s in structures]
    normal, right = np.zeros((width, width)), np.zeros(width)
    for s, f in zip(structures, found, strict=True):
        rows = f.forces.reshape(-1, width)
        normal += rows.T @ rows
        right += rows.T @ s.forces.reshape(-1)
    size = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    scaled = normal / np.outer(size, size)
    c = np.linalg.solve(scaled + RIDGE * np.eye(width), right / size) / size
    fitted = np.concatenate([(f.forces @ c).reshape(-1) for f in found])
    labelled = np.concatenate([s.forces.reshape(-1) for s in structures])
    return PairFit(
        float(np.dot(fitted, labelled) / max(np.linalg.norm(fitted) * np.linalg.norm(labelled), 1e-300)),
        np.array([f.energy @ c for f in found]),
        np.array([f.virial @ c for f in found]),
    )
