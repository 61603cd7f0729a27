"""Second derivatives of a potential by positions: products of the Hessian with directions, and the whole matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.potential import Potential, forces_at

__all__ = ["hessian", "hessian_vector_product"]


def hessian_vector_product(potential: Potential, graph: Graph, direction: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
    """Compute H . direction (eV/Å^2 times the unit of the direction) by a forward derivative of the forces."""
    _, tangent = jax.jvp(lambda r: -forces_at(potential, graph, r), (graph.positions,), (direction,))
    return tangent


def hessian(potential: Potential, graph: Graph, batch_size: int = 32) -> Float[Array, "atoms 3 atoms 3"]:
    """Compute d^2E/dr dr (eV/Å^2) over all rows of the graph, padding included, ``batch_size`` columns at a time."""
    n = graph.num_atoms
    units = jnp.eye(3 * n, dtype=graph.dtype).reshape(3 * n, n, 3)
    columns = jax.lax.map(lambda d: hessian_vector_product(potential, graph, d), units, batch_size=batch_size)
    return columns.reshape(n, 3, n, 3)
