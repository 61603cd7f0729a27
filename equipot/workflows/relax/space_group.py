"""Space groups before and after a relaxation."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from equipot.structure import Structure

ALIKE = 1e-2
"""Distance (Å) within which atoms count as images of each other: beyond what a relaxation leaves of their forces."""


class SpaceGroup(NamedTuple):
    """Space group of a structure in its own cell."""

    name: str
    """Such as ``Fd-3m (227)``."""
    rotations: frozenset[bytes]
    """Rotations in fractional coordinates, as bytes of the integers."""


def space_group(structure: Structure, tolerance: float = ALIKE) -> SpaceGroup | None:
    """Find the space group of a crystal within a tolerance (Å); None for what is no crystal, or has no group that is found."""
    if not structure.pbc.all() or not structure.volume:
        return None
    import numpy as np
    import spglib

    scaled = np.linalg.solve(structure.cell.T, structure.positions.T).T
    with warnings.catch_warnings():
        # Versions differ in how they say that they found nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        cell = (structure.cell.tolist(), scaled.tolist(), structure.numbers.tolist())
        found = spglib.get_symmetry_dataset(cell, symprec=tolerance)
    if found is None:
        return None
    turns = frozenset(np.asarray(turn, np.int64).tobytes() for turn in found.rotations)
    return SpaceGroup(f"{found.international} ({found.number})", turns)


def change(before: Structure, after: Structure) -> tuple[str, bool]:
    """Compare the space groups of a crystal before and after its relaxation.

    Returns:
        Both names, ``Fm-3m (225) to I4/mmm (139)``, empty where they are equal or one is not known; and whether a rotation was
        lost.
    """
    first, last = space_group(before), space_group(after)
    if first is None or last is None or first == last:
        return "", False
    lost = not first.rotations <= last.rotations
    return (f"{first.name} to {last.name}" if first.name != last.name or lost else ""), lost
