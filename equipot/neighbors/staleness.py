"""Bound on the motion of atoms and cell within which a neighbour list remains valid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from equipot.arrays import AnyArray
from equipot.graph import Graph, sum_graphs, to_atoms
from equipot.graph import complete_cell as complete_graph_cell
from equipot.neighbors.cells import complete_cell, inverse, product
from equipot.structure import Structure

ROUNDING = 1e-5
"""Error of distances from positions in single precision, Å."""


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


def still_complete(old: Structure | None, new: Structure, cutoff: float, skin: float) -> bool:
    """Whether the neighbour list of ``old`` within cutoff + skin (Å) holds every pair of ``new`` within the cutoff."""
    if old is None or len(old) != len(new) or (old.numbers != new.numbers).any() or (old.pbc != new.pbc).any():
        return False
    before, now = ((s.positions, s.cell) for s in (old, new))
    return not may_miss_pairs(before, now, new.pbc.tolist(), cutoff + skin, cutoff + ROUNDING)


def graphs_may_miss_pairs(
    before: tuple[Float[Array, "atoms 3"], Float[Array, "graphs 3 3"]],
    now: tuple[Float[Array, "atoms 3"], Float[Array, "graphs 3 3"]],
    graph: Graph,
    radius: float,
    cutoff: float,
) -> Bool[Array, " graphs"]:
    """Return for each system of a batch what ``may_miss_pairs`` says of it.

    Args:
        before: Positions and cells (Å) when the lists were built.
        now: Present positions and cells (Å).
        graph: Batch that the atoms belong to.
        radius: Radius (Å) out to which the lists held all pairs.
        cutoff: Cutoff radius (Å).
    """
    (old_positions, old_cell), (positions, cell) = before, now
    repeats = jnp.any(old_cell != 0, axis=-1) if graph.pbc is None else jnp.asarray(graph.pbc)
    change = jnp.where(repeats[..., None], cell - old_cell, 0)
    closed = complete_graph_cell(jnp.where(repeats[..., None], old_cell, 0))
    deformation = jnp.matmul(jnp.linalg.inv(closed), change, precision="highest")
    turned = jnp.swapaxes(deformation, 1, 2)
    symmetric = deformation + turned + jnp.matmul(turned, deformation, precision="highest")
    sigma = jnp.sqrt(jnp.maximum(0, 1 + jax.vmap(lambda m: _smallest_eigenvalue(m, jnp))(symmetric)))
    followed = jnp.einsum("ni,nij->nj", old_positions, to_atoms(deformation, graph), precision="highest")
    displacement = positions - old_positions - followed
    count = jnp.maximum(sum_graphs(jnp.ones_like(positions[:, 0]), graph), 1)
    mean = sum_graphs(displacement, graph) / count[:, None]
    off = jnp.where(graph.node_mask, jnp.linalg.norm(displacement - to_atoms(mean, graph), axis=-1), 0)
    farthest = jax.ops.segment_max(off, graph.node_graph, graph.num_graphs, indices_are_sorted=True)
    return jnp.asarray(graph.graph_mask) & ~(sigma * radius - 2 * jnp.maximum(farthest, 0) >= cutoff)


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
