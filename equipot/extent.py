"""Static sizes of a batch for terms that see positions and cells: how many atoms a system has, how many waves reach it.

A reciprocal vector is n . b, with integers n = (n_1, n_2, n_3) and b the rows of 2 pi h^-T of the cell h. All vectors no longer
than K have |n_a| <= K |h_a| / (2 pi). A batch holds the largest of these limits, so that the same integers are summed over
while a cell changes, and no wave enters or leaves the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from equipot.structure import Structure

GROWTH = 1.1
"""Factor by which lattice vectors may grow before the waves of an extent no longer suffice."""
VACUUM = 5.0
"""Vacuum above a slab, in units of the longer lattice vector of the slab. But for their net dipole, images of the slab along
its normal are seen through the vacuum as exp(-2 pi VACUUM), 2e-14 of what atoms of images within the slab see of each other."""

Waves = tuple[int, int, int]


class Extent(NamedTuple):
    """Static sizes of a graph; larger ones change no result."""

    atoms: int
    """Number of atoms of the largest system, at least."""
    waves: Waves
    """Largest integer coordinate of a reciprocal vector along each axis; (0, 0, 0) where no system repeats."""

    def join(self, other: Extent) -> Extent:
        """Return the smallest extent that holds both."""
        a, b, c = map(max, self.waves, other.waves)
        return Extent(max(self.atoms, other.atoms), (a, b, c))


def still_holds(extent: Extent | None, structure: Structure, longest_wave: float | None) -> bool:
    """Return whether the waves of an extent suffice for a structure."""
    if extent is None or longest_wave is None:
        return longest_wave is None
    needed = longest_wave * wave_lengths(structure.positions, structure.cell, structure.pbc, np) / (2 * math.pi)
    return bool(np.all(np.floor(needed) <= extent.waves))


def extent_of(structures: Iterable[Structure], longest_wave: float | None) -> Extent | None:
    """Return an extent that holds structures, rounded up, also after their cells grow by ``GROWTH``.

    Args:
        structures: systems of a batch or of a set.
        longest_wave: 1/Å, see ``Term.longest_wave``; the result is None for a term without space, whose value is None.
    """
    if longest_wave is None:
        return None
    whole = Extent(1, (0, 0, 0))
    for s in structures:
        whole = whole.join(Extent(_rung(len(s)), waves_of(s.positions, s.cell, s.pbc, longest_wave)))
    return whole


def waves_of(positions: np.ndarray, cell: np.ndarray, pbc: Any, longest_wave: float) -> Waves:
    """Return the waves of one system, rounded up, also after its cell grows by ``GROWTH``; see ``Extent.waves``.

    Args:
        positions: (atoms, 3), Å.
        cell: (3, 3), rows are lattice vectors, Å.
        pbc: whether each row repeats.
        longest_wave: 1/Å.
    """
    a, b, c = (_rung(int(GROWTH * x)) for x in longest_wave * wave_lengths(positions, cell, pbc, np) / (2 * math.pi))
    return a, b, c


def wave_lengths(positions: Any, cell: Any, pbc: Any, xp: Any) -> Any:
    """Return the lengths (3,) in Å of the vectors whose reciprocal vectors are summed over: those of the lattice vectors, along
    the open vector of a slab its thickness and the vacuum above it (see ``VACUUM``), and zero without periodicity.

    Args:
        positions: (atoms, 3), Å.
        cell: (3, 3), rows are lattice vectors, Å.
        pbc: three booleans of the host.
        xp: ``numpy`` or ``jax.numpy``.
    """
    length = [xp.sqrt(xp.sum(cell[k] ** 2)) if repeats else xp.zeros(()) for k, repeats in enumerate(pbc)]
    if sum(map(bool, pbc)) == 2 and len(positions):
        (k,) = (axis for axis in range(3) if not pbc[axis])
        normal = xp.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])
        height = positions @ normal / xp.sqrt(xp.sum(normal**2))
        length[k] = slab_length(xp.max(height) - xp.min(height), length[(k + 1) % 3], length[(k + 2) % 3], xp)
    return xp.stack(length)


def slab_length(thickness: Any, first: Any, second: Any, xp: Any) -> Any:
    """Return the length (Å) of a slab's cell along its normal, from thickness and lengths of the lattice vectors (Å)."""
    return thickness + VACUUM * xp.maximum(first, second)


def _rung(n: int) -> int:
    """Round up by at most about an eighth, so that sizes that differ little are compiled once."""
    step = max(1, 2 ** (max(n, 1).bit_length() - 4))
    return -(-n // step) * step
