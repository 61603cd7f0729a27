"""The symmetry number of a molecule: rotations that exchange equal atoms."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from equipot.rigid_motions import masses_of
from equipot.structure import Structure


def symmetry_number(structure: Structure, tolerance: float) -> int:
    """Count the proper rotations that map a molecule onto itself: 1 for an atom, 2 or 1 for a linear molecule.

    Two atoms that are not on one line with the centre of mass fix a rotation by their images; each pair of equal atoms at equal
    distances is tried.

    Args:
        structure: molecule.
        tolerance: distance (Å) within which an atom must fall onto one of its kind.
    """
    masses = masses_of(structure)
    x = structure.positions - masses @ structure.positions / masses.sum()
    # Isotopes are different atoms.
    kinds = np.stack([structure.numbers, np.round(masses, 3)], axis=1)
    size = np.linalg.norm(x, axis=1)
    if size.max() < tolerance:
        return 1
    axis = x[size.argmax()] / size.max()
    aside = np.linalg.norm(np.cross(x, axis), axis=1)
    if aside.max() < tolerance:
        return 2 if maps(-x, x, kinds, tolerance) else 1
    first, second = int(size.argmax()), int(aside.argmax())
    frame = _frame(x[first], x[second])
    found: list[Float[np.ndarray, "3 3"]] = []
    for a in _like(first, kinds, size, tolerance):
        for b in _like(second, kinds, size, tolerance):
            if abs(np.linalg.norm(x[a] - x[b]) - np.linalg.norm(x[first] - x[second])) > 2 * tolerance or a == b:
                continue
            rotation = _frame(x[a], x[b]).T @ frame
            # Two nearly equal rotations are one: images of the farthest atom tell them apart.
            new = all(np.linalg.norm(rotation - old) * size.max() > 4 * tolerance for old in found)
            if new and maps(x @ rotation.T, x, kinds, tolerance):
                found.append(rotation)
    return max(1, len(found))


def maps(
    moved: Float[np.ndarray, "atoms 3"],
    x: Float[np.ndarray, "atoms 3"],
    kinds: Float[np.ndarray, "atoms 2"],
    tolerance: float,
) -> bool:
    """Whether each moved atom falls onto an atom of its kind."""
    near = np.linalg.norm(moved[:, None] - x[None], axis=-1) < tolerance
    same = (kinds[:, None] == kinds[None]).all(axis=-1)
    return bool((near & same).any(axis=1).all())


def _like(atom: int, kinds: Float[np.ndarray, "atoms 2"], size: Float[np.ndarray, " atoms"], tolerance: float) -> list[int]:
    """Return the atoms of the kind and distance from the centre of mass of an atom."""
    same = (kinds == kinds[atom]).all(axis=1) & (np.abs(size - size[atom]) < tolerance)
    return np.flatnonzero(same).tolist()


def _frame(a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Return a right-handed orthonormal frame in rows: along a, towards b, and at right angles to both."""
    e = a / np.linalg.norm(a)
    f = b - (b @ e) * e
    f = f / np.linalg.norm(f)
    return np.stack([e, f, np.cross(e, f)])
