"""The geometry that a term sees, and forces, virials and stress from the gradient of an energy by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph, edge_vectors, sum_graphs, volume
from equipot.posterior import Change
from equipot.term import Term


class Geometry(NamedTuple):
    """Variables that the energy is differentiated by; positions and cell only for a term that needs ``space``.

    A committee takes copies of it, one for each member, along an axis before all others."""

    vectors: Float[Array, "*copies atoms slots 3"]
    """From each atom to the neighbours in its slots, Å."""
    positions: Float[Array, "*copies atoms 3"] | None = None
    """Å."""
    cell: Float[Array, "*copies graphs 3 3"] | None = None
    """Lattice vectors as rows, Å; zero rows where a system does not repeat."""


def geometry_of(term: Term, graph: Graph) -> Geometry:
    """Return the part of a graph's geometry that a term sees.

    Positions and cell are rounded once, where their residuals are added.
    """
    if "space" not in term.needs:
        return Geometry(edge_vectors(graph))
    whole = lambda x, residual: x if residual is None else x + residual
    return Geometry(
        edge_vectors(graph), whole(graph.positions, graph.positions_residual), whole(graph.cell, graph.cell_residual)
    )


def change_of(
    graph: Graph, geometry: Geometry, gradient: Geometry, to_positions: Callable[[Geometry], Any], with_stress: bool
) -> Change:
    """Convert the gradient of an energy by the geometry to forces, and to a stress where that is wanted."""
    stress = stress_of(atomic_virials(graph, geometry, gradient), graph) if with_stress else None
    return Change(-to_positions(gradient)[0], stress)


def stress_of(virials: Float[Array, "atoms 3 3"], graph: Graph) -> Float[Array, "graphs 3 3"]:
    """Compute the stress (eV/Å^3) from the virials of the atoms (eV): NaN without a volume, zero for a graph of padding."""
    v = volume(graph)[:, None, None]
    # A padding graph gets zero, a real one without a volume NaN: there is no stress to report.
    safe = jnp.where(v > 0, v, 1)
    empty = jnp.where(graph.graph_mask[:, None, None], jnp.nan, 0.0)
    return jnp.where(v > 0, sum_graphs(virials, graph) / safe, empty)


def atomic_virials(graph: Graph, geometry: Geometry, gradient: Geometry) -> Float[Array, "atoms 3 3"]:
    """Divide the virial of each graph among the atoms (eV, symmetric), for the ``gradient`` of the energy.

    A strain e moves each vector v to v + v . e, and positions and cell alike, so that dE/de is a sum of products v (x) g_v:
    W_i = sum over slots v (x) g_v + r_i (x) g_r,i + h^T g_h / n, with n the number of atoms of the graph, made symmetric. The
    part of the positions depends on the origin and on which image stands for an atom; the sum over the graph does not.
    """
    vectors = jnp.where(graph.slot_mask[..., None], geometry.vectors, 0)
    virials = jnp.einsum("nki,nkj->nij", vectors, gradient.vectors, precision="highest")
    if geometry.positions is not None and gradient.positions is not None:
        virials += geometry.positions[:, :, None] * gradient.positions[:, None, :]
        of_cell = jnp.einsum("gai,gaj->gij", geometry.cell, gradient.cell, precision="highest")
        count = sum_graphs(jnp.ones_like(geometry.positions[:, 0]), graph)
        share = (of_cell / jnp.maximum(count, 1)[:, None, None])[graph.node_graph]
        virials += jnp.where(graph.node_mask[:, None, None], share, 0)
    return (virials + jnp.swapaxes(virials, 1, 2)) / 2
