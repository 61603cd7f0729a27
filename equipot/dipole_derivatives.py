"""Derivatives of the dipole moment: Born effective charges and polarizabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph, sum_graphs
from equipot.quantities import BORN_CHARGES, POLARIZABILITY, Quantity


def dipole_derivatives(
    dipoles: Callable[[Graph], Float[Array, "atoms 3"] | None], graph: Graph, rows: Sequence[Quantity]
) -> dict[str, Float[Array, "..."]]:
    """Compute derivatives of the dipole moments of a batch, by name: Born effective charges (atoms, 3, 3) in e, from one
    backward pass for each component, and polarizabilities (graphs, 3, 3) in e^2 Å^2/eV, from one forward pass for each; NaN
    for a system without a dipole moment.

    Args:
        dipoles: contributions of the atoms of a graph to its dipole moment, e Å.
    """
    field = jnp.zeros((graph.num_graphs, 3), graph.dtype) if graph.field is None else jnp.asarray(graph.field)

    def dipole(positions: Array, field: Array) -> Array:
        moved = graph.replace(positions=positions, positions_residual=graph.positions_residual, field=field)
        return sum_graphs(jnp.asarray(dipoles(moved)), graph)

    out, axes = {}, jnp.broadcast_to(jnp.eye(3, dtype=field.dtype)[:, None], (3, graph.num_graphs, 3))
    if BORN_CHARGES in rows:
        moment, pull = jax.vjp(lambda r: dipole(r, field), graph.positions)
        undefined = graph.node_mask & jnp.any(jnp.isnan(moment), axis=1)[graph.node_graph]
        born = jnp.stack([pull(axis)[0] for axis in axes], axis=1)
        out[BORN_CHARGES.name] = jnp.where(undefined[:, None, None], jnp.nan, born)
    if POLARIZABILITY in rows:
        moment, push = jax.linearize(lambda e: dipole(jnp.asarray(graph.positions), e), field)
        found = jnp.stack([push(axis) for axis in axes], axis=2)
        out[POLARIZABILITY.name] = jnp.where(jnp.any(jnp.isnan(moment), axis=1)[:, None, None], jnp.nan, found)
    return out
