"""Derivatives of summed features along random directions, for the covariance of a last layer that is trained on forces."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from equipot.graph import Graph, sum_graphs

PROBES = 4
"""Number of directions."""


def feature_slopes(
    features: Callable[[Float[Array, "atoms 3"]], Float[Array, "atoms features"] | None], graph: Graph
) -> Float[Array, "graphs probes features"]:
    """Compute the derivatives of the sum of the features over the atoms of each graph along random signs v: J^T v.

    J, (3 atoms, features), is the derivative of that sum by the positions. The mean over v of (J^T v) (J^T v)^T is J^T J, the
    sum over all Cartesian components of products of rows of J (M. F. Hutchinson, Commun. Stat. Simul. Comput. 19, 433, 1990).
    Signs are a function of the positions of the graph and of the place of an atom in the graph: they depend on no batch.

    Args:
        features: features of the atoms at given positions (Å).

    Raises:
        ValueError: the term has no features.
    """

    def summed(positions: Array) -> Array:
        if (found := features(positions)) is None:
            raise ValueError("the model has no features of a last linear layer; take MACE, NequIP or another network")
        return sum_graphs(found, graph)

    _, push = jax.linearize(summed, jnp.asarray(graph.positions))
    along = lambda seed: push(random_signs(graph, seed).astype(graph.dtype))
    return jnp.swapaxes(jax.lax.map(along, jnp.arange(PROBES, dtype=jnp.uint32)), 0, 1)


def random_signs(graph: Graph, seed: UInt[Array, ""]) -> Float[Array, "atoms 3"]:
    """Draw -1 or 1 for each Cartesian component of each atom, by the positions of its graph and its place there."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(graph.positions, jnp.float32), jnp.uint32)
    real = graph.node_mask.astype(jnp.uint32)
    # Sums of whole numbers that wrap around are exact in any order.
    total = lambda x: jax.ops.segment_sum(x, graph.node_graph, graph.num_graphs)
    count, mark = total(real), total(jnp.sum(bits, axis=1, dtype=jnp.uint32) * real)
    place = jnp.arange(graph.num_atoms, dtype=jnp.uint32) - (jnp.cumsum(count) - count)[graph.node_graph]
    component = 3 * place[:, None] + jnp.arange(3, dtype=jnp.uint32)[None]
    x = (mark[graph.node_graph][:, None] + component) ^ (seed * jnp.uint32(0x9E3779B9))
    # The finalizer of MurmurHash3 (A. Appleby), twice.
    for _ in range(2):
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    assert x.dtype == jnp.uint32, "wider numbers would all have the sign of the 32nd bit"
    return jnp.where(x >> 31 == 0, 1.0, -1.0)
