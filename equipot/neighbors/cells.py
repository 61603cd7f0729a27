"""Cells: heights, completion of open cells, and checks of a geometry before its neighbour list is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FLATTEST = 1.0e-3
"""Smallest height of a cell along a periodic direction, in cutoffs; a flatter cell counts as having no volume."""


def complete_cell(cell: Any, pbc: Sequence[bool]) -> Any:
    """Replace each row of a cell that is not periodic by a unit vector normal to all other rows.

    Args:
        cell: (3, 3) array of numpy or JAX (Å).
        pbc: Whether the system is periodic along each row.

    Returns:
        (3, 3) array of that library, invertible if the periodic rows are linearly independent.
    """
    xp = jnp if isinstance(cell, jax.Array) else np
    unit = lambda v: v / xp.sqrt(xp.sum(v * v))
    periodic = [k for k in range(3) if pbc[k]]
    if len(periodic) == 3:
        return cell
    if not periodic:
        return xp.eye(3, dtype=cell.dtype)
    rows = list(cell)
    if len(periodic) == 2:
        k = pbc.index(False)
        rows[k] = unit(xp.cross(rows[(k + 1) % 3], rows[(k + 2) % 3]))
    else:
        k = periodic[0]
        axis = unit(rows[k])
        rows[(k + 1) % 3] = unit(xp.cross(axis, xp.eye(3, dtype=cell.dtype)[xp.argmin(xp.abs(axis))]))
        rows[(k + 2) % 3] = unit(xp.cross(axis, rows[(k + 1) % 3]))
    return xp.stack(rows)


def inverse(cell: Any) -> Any:
    """Compute the inverse of an invertible cell: (3, 3) array of numpy or JAX."""
    xp = jnp if isinstance(cell, jax.Array) else np
    a, b, c = cell
    columns = xp.stack([xp.cross(b, c), xp.cross(c, a), xp.cross(a, b)], axis=1)
    return columns / xp.sum(a * columns[:, 0])


def product(a: Any, b: Any) -> Any:
    """Multiply (n, 3) by (3, 3), of numpy or JAX, in full precision: a GPU may round the operands of a dot product."""
    return a[:, 0, None] * b[None, 0] + a[:, 1, None] * b[None, 1] + a[:, 2, None] * b[None, 2]


def heights(cell: np.ndarray) -> np.ndarray:
    """Compute the distance (Å) between the two faces of a cell that each lattice vector connects: (3, 3) -> (3,).

    The height along a is |det cell| / |b x c|; all heights are zero for a cell without volume.
    """
    area = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    return np.divide(abs(np.linalg.det(cell)), area, out=np.zeros(3), where=area > 0)


def check_cutoff(cutoff: float) -> None:
    """Check a cutoff (Å).

    Raises:
        ValueError: the cutoff is not positive and finite.
    """
    if not (cutoff > 0 and math.isfinite(cutoff)):
        raise ValueError(f"the cutoff is {cutoff} Å; give a positive number")


def checked_geometry(
    positions: Any, cell: Any, pbc: Any, cutoff: float
) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    """Convert a geometry to float64 and check the geometry.

    Args:
        positions: (atoms, 3), Å.
        cell: (3, 3), rows are lattice vectors, Å.
        pbc: One bool, or three.
        cutoff: Cutoff radius (Å).

    Returns:
        Positions (atoms, 3), cell (3, 3), and pbc as three bools.

    Raises:
        ValueError: a cutoff that is not positive, a coordinate that is not finite, or a periodic cell without volume.
    """
    positions = np.asarray(positions, np.float64).reshape(-1, 3)
    cell = np.asarray(cell, np.float64)
    pbc = tuple(map(bool, np.broadcast_to(np.asarray(pbc, bool), (3,))))
    check_cutoff(cutoff)
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise ValueError(f"the position of atom {bad[0]} is {positions[bad[0]]}: not finite ({len(bad)} such atoms)")
    if cell.shape != (3, 3) or not np.isfinite(cell[list(pbc)]).all():
        raise ValueError(f"the cell is {cell.tolist()}; give three finite lattice vectors")
    if not any(pbc):
        return positions, cell, pbc
    with np.errstate(invalid="ignore", divide="ignore"):
        height = np.nan_to_num(heights(complete_cell(cell, pbc)))
    flat = [k for k in range(3) if pbc[k] and height[k] < FLATTEST * cutoff]
    if flat:
        raise ValueError(
            f"the cell {cell.tolist()} repeats along {', '.join('abc'[k] for k in range(3) if pbc[k])}, but has no volume: its "
            f"height along {'abc'[flat[0]]} is {height[flat[0]]:.2g} Å; correct the cell or switch pbc off in that direction"
        )
    return positions, cell, pbc
