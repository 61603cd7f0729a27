"""Bound on the motion of atoms and cell within which a neighbour list remains valid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from equipot.arrays import AnyArray
from equipot.neighbors.cells import complete_cell, inverse, product


def may_miss_pairs(
    before: tuple[Float[AnyArray, "atoms 3"], Float[AnyArray, "3 3"]],
    now: tuple[Float[AnyArray, "atoms 3"], Float[AnyArray, "3 3"]],
    pbc: Sequence[bool],
    radius: float,
    cutoff: float,
) -> Bool[AnyArray | np.bool_, ""]:
    """Return whether a pair that is not in a list may be within the cutoff; True also if a coordinate is not finite.

    Let x0, C0 be positions and cell (rows) when the list was built, x, C positions and cell at present, and
    F = 1 + C0^+ (C - C0) the deformation of the cell, with C0^+ the pseudo-inverse of the periodic rows, so that C = C0 F. The
    motion of every atom is the deformation plus a displacement u, x_i = x0_i F + u_i. The vector of pair (i, j, s) was
    v0 = x0_j - x0_i + s C0 and is

        v = x_j - x_i + s C = v0 F + u_j - u_i,    |v| >= sigma_min(F) |v0| - |u_j - u_i|.

    A pair that is not in the list had |v0| >= radius. The difference u_j - u_i does not change when a constant is subtracted
    from all u, so |u_j - u_i| <= 2 max_k |u_k - mean(u)|: the bound does not depend on a common drift, nor on the point about
    which a barostat scales. No pair within the cutoff can be missing while

        sigma_min(F) radius - 2 max_k |u_k - mean(u)| >= cutoff.

    The smallest singular value is computed exactly, sigma_min^2 = 1 + lambda_min(D + D^T + D^T D) with D = F - 1, less a bound
    on rounding.

    Args:
        before: Positions and cell (Å), of numpy or JAX, when the list was built.
        now: Present positions and cell (Å), of that library.
        pbc: Whether the system is periodic along each row of the cell; other rows are ignored.
        radius: Radius (Å) out to which the list held all pairs.
        cutoff: Cutoff radius (Å).
    """
    (old_positions, old_cell), (positions, cell) = before, now
    xp: Any = jnp if isinstance(positions, jax.Array) else np
    change = xp.where(xp.asarray(pbc)[:, None], cell - old_cell, 0).astype(positions.dtype)
    deformation = product(inverse(complete_cell(old_cell, pbc)), change)
    symmetric = deformation + deformation.T + product(deformation.T, deformation)
    sigma = xp.sqrt(xp.maximum(0, 1 + _smallest_eigenvalue(symmetric, xp)))
    displacement = (positions - old_positions) - product(old_positions, deformation)
    farthest = xp.sqrt(xp.max(xp.sum((displacement - xp.mean(displacement, axis=0, keepdims=True)) ** 2, axis=1)))
    return ~(sigma * radius - 2 * farthest >= cutoff)


def _smallest_eigenvalue(m: Float[AnyArray, "3 3"], xp: Any) -> Any:
    """Bound the smallest eigenvalue of a symmetric matrix from below, by the formula of Smith, Commun. ACM 4, 168 (1961)."""
    mean = xp.trace(m) / 3
    rest = m - mean * xp.eye(3, dtype=m.dtype)
    spread = xp.sqrt(xp.sum(rest**2) / 6)
    a, b, c = rest / xp.where(spread > 0, spread, 1)
    angle = xp.arccos(xp.clip(xp.sum(a * xp.cross(b, c)) / 2, -1, 1)) / 3
    # arccos turns an error e of its argument near 1 into one of sqrt(2 e).
    rounding = 4 * math.sqrt(xp.finfo(m.dtype).eps)
    return mean + spread * (2 * xp.cos(angle + 2 * math.pi / 3) - rounding)
