"""What a system may do in its relaxation: strains of its cell, free components of its positions, its space group."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.relax.config import VOIGT, RelaxConfig

MOST = 768
"""Largest number of symmetry operations that are kept."""
PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Indices of the components of a symmetric tensor, in the order of ``VOIGT``."""


class Limits(NamedTuple):
    """What one system may do; see ``coordinates.Bounds``."""

    free: np.ndarray
    """(n, 3) components of the positions that may move."""
    strains: np.ndarray
    """(9, 9) orthogonal projection on the allowed strains."""
    rotations: np.ndarray
    """(operations, 3, 3), Cartesian: the vector of an atom's image is the atom's, multiplied by it from the left."""
    images: np.ndarray
    """(operations, n) atom that each atom is mapped to."""
    target: np.ndarray
    """(3, 3) target stress, eV/Å^3."""
    group: str
    """Space group that is kept, such as ``Fd-3m (227)``; empty where none is."""
    misfit: np.ndarray
    """(n, 3) step that makes the positions exactly symmetric, Å."""


def limits(structure: Structure, settings: RelaxConfig) -> Limits:
    """Find what a system may do.

    Raises:
        ValueError: a cell that is to change but does not repeat, or constraints that are no fixed components.
    """
    n = len(structure)
    moves = settings.moves_cells
    if moves and not (structure.pbc.any() and structure.volume > 0):
        raise ValueError(f"{structure.name} has no cell to relax (cell: {settings.cell}); leave the cell fixed")
    free = np.ones((n, 3), bool) if structure.fixed is None else ~structure.fixed
    other = [name for name in structure.constraints if name not in ("FixAtoms", "FixCartesian")]
    if other:
        raise ValueError(
            f"{structure.name}: constraints {', '.join(other)} are not known here, only FixAtoms and FixCartesian; relax it "
            "with an optimiser of ASE and potential.calculator(), or remove them"
        )
    if structure.constraints and structure.fixed is None:
        raise ValueError(f"{structure.name}: its file says that atoms are fixed, but not which; use extended XYZ")
    whole = bool(structure.pbc.all()) and free.all()
    if moves and (settings.pressure_GPa or settings.stress_GPa is not None) and not structure.pbc.all():
        raise ValueError(f"{structure.name} does not repeat in three directions: a pressure or stress means nothing to it")
    if settings.stress_GPa is None:
        target = -settings.pressure_GPa * GPa * np.eye(3)
    else:
        target = np.zeros((3, 3))
        for (i, j), value in zip(PAIRS, settings.stress_GPa, strict=True):
            target[i, j] = target[j, i] = value * GPa
    rotations, images, group, misfit = np.eye(3)[None], np.arange(n)[None], "", np.zeros((n, 3))
    if settings.symmetry and whole and structure.volume > 0:
        found = operations(structure, settings.symprec)
        kept = [allowed(turn, target, settings) for turn in found.rotations]
        rotations, images, misfit = found.rotations[kept], found.images[kept], found.misfit
        group = found.group if all(kept) else f"{sum(kept)} of {len(kept)} operations of {found.group}"
        group, misfit = (group, misfit) if len(rotations) > 1 else ("", np.zeros((n, 3)))
    strains = projection(structure, settings, rotations) if moves else np.zeros((9, 9))
    return Limits(free, strains, rotations, images, target, group, misfit)


def allowed(turn: np.ndarray, target: np.ndarray, settings: RelaxConfig) -> bool:
    """Whether a rotation (3, 3) leaves the target stress, and the choice of strains, as they are."""
    if not settings.moves_cells:
        return True
    chosen, both = chosen_strains(settings), np.kron(turn, turn)
    return bool(np.allclose(turn @ target @ turn.T, target, atol=1e-9) and np.allclose(both @ chosen, chosen @ both, atol=1e-6))


class Operations(NamedTuple):
    """Space group of a structure."""

    rotations: np.ndarray
    """(operations, 3, 3), Cartesian, acting on columns."""
    images: np.ndarray
    """(operations, n) atom that each atom is mapped to."""
    group: str
    """Name; empty where no group was found."""
    misfit: np.ndarray
    """(n, 3) from each atom to the mean of the places that the operations map atoms to, Å."""


def operations(structure: Structure, symprec: float) -> Operations:
    """Find the space group of a structure within ``symprec`` (Å).

    A structure whose group is not found, or has operations that map no atom onto another, has the identity alone, and so has
    one with more than ``MOST`` operations: a large perfect supercell, whose symmetry its forces keep by themselves.
    """
    import spglib

    cell = structure.cell
    scaled = np.linalg.solve(cell.T, structure.positions.T).T
    none = Operations(np.eye(3)[None], np.arange(len(structure))[None], "", np.zeros((len(structure), 3)))
    with warnings.catch_warnings():
        # Versions differ in how they say that they found nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry_dataset((cell.tolist(), scaled.tolist(), structure.numbers.tolist()), symprec=symprec)
    if found is None or len(found.rotations) > MOST:
        return none
    rotations, images, misfit = [], [], np.zeros((len(structure), 3))
    for turn, shift in zip(found.rotations, found.translations, strict=True):
        moved = scaled @ turn.T + shift
        image = _matched(moved, scaled, structure, 10 * symprec)
        if image is None:
            return none
        # Rows of the cell: x = s C, so that x' = s W^T C = x C^-1 W^T C, and columns turn by the transpose.
        rotations.append((np.linalg.inv(cell) @ turn.T @ cell).T)
        images.append(image)
        off = moved - scaled[image]
        misfit[image] += (off - np.round(off)) @ cell
    group = f"{found.international} ({found.number})"
    return Operations(np.array(rotations), np.array(images), group, misfit / len(rotations))


def _matched(moved: np.ndarray, scaled: np.ndarray, structure: Structure, reach: float) -> np.ndarray | None:
    """Find the atom at each moved place, as fractional coordinates (n, 3); None where one has no atom of its own kind."""
    from scipy.spatial import cKDTree

    lengths = np.linalg.norm(structure.cell, axis=1)
    wrap = lambda x: (x - np.floor(x)) % 1.0
    tree = cKDTree(wrap(scaled) * lengths, boxsize=lengths)
    # Distances of a skewed cell differ from those along its vectors by a factor, which the reach of the search allows for.
    skew = max(1.0, float(np.linalg.norm(np.linalg.inv(structure.cell / lengths[:, None]), 2)))
    distances, image = tree.query(wrap(moved) * lengths)
    sound = (distances < skew * reach + 1e-9).all() and len(np.unique(image)) == len(image)
    return image if sound and (structure.numbers[image] == structure.numbers).all() else None


def projection(structure: Structure, settings: RelaxConfig, rotations: np.ndarray) -> np.ndarray:
    """Return the orthogonal projection (9, 9) on the symmetric strains that settings, open directions and symmetry allow."""
    # A vacuum has no strain: only directions within the repeating vectors deform.
    rows = structure.cell[structure.pbc]
    inside = np.linalg.pinv(rows) @ rows
    parts = [chosen_strains(settings), np.kron(inside, inside)]
    unit = (inside / np.linalg.norm(inside)).reshape(9)
    growth = np.outer(unit, unit)
    if settings.cell == "isotropic":
        parts.append(growth)
    if settings.cell == "shape":
        # The logarithm of a strain without trace leaves the volume as it is, whatever its size.
        parts.append(np.eye(9) - growth)
    if len(rotations) > 1:
        parts.append(np.mean([np.kron(turn, turn) for turn in rotations], axis=0))
    return intersection(parts)


def chosen_strains(settings: RelaxConfig) -> np.ndarray:
    """Return the orthogonal projection (9, 9) on the components of the strain that the settings name."""
    basis = []
    for (i, j), name in zip(PAIRS, VOIGT, strict=True):
        if name in settings.strains:
            e = np.zeros((3, 3))
            e[i, j] = e[j, i] = 1
            basis.append((e / np.linalg.norm(e)).reshape(9))
    return np.array(basis).T @ np.array(basis)


def intersection(projections: list[np.ndarray]) -> np.ndarray:
    """Return the orthogonal projection on what several projections leave as it is."""
    total = sum(np.eye(9) - part for part in projections)
    values, vectors = np.linalg.eigh((total + total.T) / 2)
    kept = vectors[:, values < 1e-8]
    return kept @ kept.T
