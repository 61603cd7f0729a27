"""Atoms of a batch arranged by system, [graphs, atoms of the largest system], for sums over all pairs or waves of a system."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph


class Rows(NamedTuple):
    """Arrangement of the atoms of a batch in one row for each system."""

    atom: Int[Array, "graphs row"]
    """Atom in each place; any atom in places beyond the system's last."""
    used: Bool[Array, "graphs row"]
    """Whether a place holds an atom."""
    place: Int[Array, " atoms"]
    """Place of each atom in the row of its system."""
    graph: Int[Array, " atoms"]
    """System of each atom."""
    complete: Bool[Array, ""]
    """Whether every atom has a place: else the extent of the graph is too small, and no result may be used."""

    def arrange(self, x: Float[Array, "atoms ..."]) -> Float[Array, "graphs row ..."]:
        """Copy values of atoms into the rows; zero in unused places."""
        return jnp.where(self.used.reshape(*self.used.shape, *[1] * (x.ndim - 1)), x[self.atom], 0)

    def collect(self, y: Float[Array, "graphs row ..."]) -> Float[Array, "atoms ..."]:
        """Copy values of places back to the atoms."""
        return y[self.graph, self.place]


def rows_of(graph: Graph) -> Rows:
    """Arrange the atoms of a graph: as many places as ``graph.extent`` says, as there are atoms where it says nothing."""
    n = graph.num_atoms
    most = n if graph.extent is None else min(graph.extent.atoms, n)
    mine = graph.node_mask[None] & (graph.node_graph[None] == jnp.arange(graph.num_graphs)[:, None])
    count = jnp.sum(mine, axis=1)
    start = jnp.cumsum(count) - count
    atom = jnp.minimum(start[:, None] + jnp.arange(most)[None], n - 1)
    used = jnp.arange(most)[None] < count[:, None]
    place = jnp.clip(jnp.arange(n) - start[graph.node_graph], 0, most - 1)
    return Rows(atom, used, place, jnp.asarray(graph.node_graph), jnp.all(count <= most))
