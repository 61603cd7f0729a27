"""Least-squares fits of total energies to compositions: one energy per element, and one per charge and unpaired electron.

An electron is removed or added at the expense of some eV. Without columns of their own, these would be smeared over the
energies of the elements: a neutral frame of 12 atoms beside cations would be 1 eV/atom off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import scipy.linalg
from ase.data import chemical_symbols

from equipot.quantities import ENERGY
from equipot.structure import Structure

RANK_TOLERANCE = 1e-6
"""Singular values of the matrix of atomic fractions below this share of the largest count as zero."""
LARGEST_DENOMINATOR = 10**6
"""Limit on the denominators of fractional charges, where exact arithmetic needs them as fractions."""


@dataclass(frozen=True)
class Fit:
    """Least-squares fit of an energy per element."""

    energies: Mapping[int, float]
    """eV by Z."""
    rms: float
    """RMS residual, eV/atom."""
    undetermined: tuple[str, ...]
    """Changes of the energies that leave the fit of every composition unchanged, such as ``C +1 eV with H -0.25 eV``."""
    of_electrons: np.ndarray
    """(columns,) eV for each unit of the columns besides those of elements; zero where nothing determines one."""


ELECTRONS = ("positive charge", "negative charge", "unpaired electron")
"""Names of the columns of ``Compositions.electrons``."""


def symbol(z: int) -> str:
    """Return the symbol of the element with atomic number z."""
    return chemical_symbols[z]


class Compositions(NamedTuple):
    """Compositions and energies of some frames."""

    counts: np.ndarray
    """(frames, elements) atoms of each element."""
    energies: np.ndarray
    """(frames,) total energies, eV; NaN for a missing energy or one of weight zero."""
    weights: np.ndarray
    """(frames,) weights of the energies."""
    elements: tuple[int, ...]
    """Z, ascending."""
    electrons: np.ndarray
    """(frames, 3) positive charge (e), negative charge (-e) and unpaired electrons, none of them negative."""


def electrons_of(structure: Structure) -> tuple[float, float, float]:
    """Return positive charge (e), negative charge (-e) and unpaired electrons of a system."""
    return max(structure.charge, 0.0), max(-structure.charge, 0.0), structure.spin


def compositions(structures: Iterable[Structure]) -> Compositions:
    """Collect compositions and energies of some frames."""
    counts, energies, weights, electrons = [], [], [], []
    for s in structures:
        electrons.append(electrons_of(s))
        counts.append(dict(zip(*np.unique(s.numbers, return_counts=True), strict=True)))
        weights.append(s.weight_of(ENERGY))
        energies.append(s.energy if weights[-1] else np.nan)
    elements = tuple(sorted({int(z) for row in counts for z in row}))
    matrix = np.array([[row.get(z, 0) for z in elements] for row in counts], float).reshape(len(counts), len(elements))
    columns = np.array(electrons, float).reshape(len(counts), len(ELECTRONS))
    return Compositions(matrix, np.array(energies, float), np.array(weights, float), elements, columns)


def neutral_where_enough(counts: np.ndarray, electrons: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Select the frames for a fit of E0: the neutral ones, if they determine as much as all frames do; otherwise all.

    Ions say little of E0: the energy to remove an electron differs by eV from molecule to molecule.

    Args:
        counts: (frames, elements) atoms of each element.
        electrons: (frames, 3) see ``Compositions``.
        labelled: (frames,) whether a frame can be used: those that have an energy.

    Returns:
        (frames,) whether to use a frame.
    """
    neutral = labelled & ~electrons[:, :2].any(axis=1)

    def rank(mask: np.ndarray) -> int:
        rows = counts[mask] / counts[mask].sum(1, keepdims=True)
        return np.linalg.matrix_rank(rows, tol=RANK_TOLERANCE * np.sqrt(len(rows))) if len(rows) else 0

    return neutral if rank(neutral) == rank(labelled) else labelled


def fit_energies(
    counts: np.ndarray,
    energies: np.ndarray,
    elements: Sequence[int],
    weights: np.ndarray | None = None,
    electrons: np.ndarray | None = None,
) -> Fit:
    """Fit an energy per element by weighted least squares of energy per atom over atomic fractions.

    If the fractions do not determine every energy, the solution closest to a single energy for all atoms is returned.

    Args:
        counts: (frames, elements) atoms of each element.
        energies: (frames,) total energies, eV.
        elements: Z of each column.
        weights: (frames,) positive weights of the squared errors per atom; None for equal weights.
        electrons: (frames, columns) first columns of ``Compositions.electrons``, with an energy of their own each; None for no
            such energies.

    Raises:
        ValueError: no energies.
    """
    if len(energies) == 0:
        raise ValueError(
            "no frame has an energy (of a weight above zero) to fit E0 to; give data.atomic_energies, or check data.keys.energy"
        )
    weights = np.ones(len(energies)) if weights is None else weights
    electrons = np.zeros((len(energies), 0)) if electrons is None else electrons
    atoms = counts.sum(1, keepdims=True)
    rows, per_atom = np.column_stack([counts, electrons]) / atoms, energies / atoms[:, 0]
    common = np.average(per_atom, weights=weights)
    root = np.sqrt(weights / weights.max())
    deviation = np.linalg.lstsq(root[:, None] * rows, root * (per_atom - common), rcond=RANK_TOLERANCE)[0]
    left = per_atom - common - rows @ deviation
    count = len(elements)
    values = {int(z): float(common + d) for z, d in zip(elements, deviation[:count], strict=True)}
    rms = float(np.sqrt(np.average(left**2, weights=weights)))
    used = [k for k in range(electrons.shape[1]) if electrons[:, k].any()]
    names = [*(symbol(int(z)) for z in elements), *(ELECTRONS[k] for k in used)]
    return Fit(values, rms, undetermined(np.column_stack([counts, electrons[:, used]]), names), deviation[count:])


def undetermined(counts: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Describe the changes of element energies that leave the energy of every composition unchanged.

    The changes are the exact null space of ``counts`` (frames, names) in reduced form: one for each name beyond the rank.
    """
    rows = np.unique(counts, axis=0)
    # Independent rows by pivoted QR, so that the exact elimination works on few of them.
    _, r, order = scipy.linalg.qr((rows / rows.sum(1, keepdims=True)).T, pivoting=True, mode="economic")
    diagonal = np.abs(np.diag(r))
    rank = int(np.sum(diagonal > RANK_TOLERANCE * diagonal[0]))
    if rank == len(names):
        return ()
    matrix = [[Fraction(float(x)).limit_denominator(LARGEST_DENOMINATOR) for x in rows[k]] for k in order[:rank]]
    pivots: list[int] = []
    for column in range(len(names)):
        row = next((k for k in range(len(pivots), rank) if matrix[k][column] != 0), None)
        if row is None:
            continue
        place = len(pivots)
        matrix[place], matrix[row] = matrix[row], matrix[place]
        matrix[place] = [x / matrix[place][column] for x in matrix[place]]
        for k in range(rank):
            if k != place and matrix[k][column] != 0:
                factor = matrix[k][column]
                matrix[k] = [x - factor * y for x, y in zip(matrix[k], matrix[place], strict=True)]
        pivots.append(column)
    found = []
    for column in (c for c in range(len(names)) if c not in pivots):
        partners = [(names[p], -matrix[k][column]) for k, p in enumerate(pivots) if matrix[k][column] != 0]
        found.append(" with ".join([f"{names[column]} +1 eV", *(f"{name} {float(x):+.3g} eV" for name, x in partners)]))
    return tuple(found)
