"""A term that depends on positions and cell directly, as an Ewald sum does, and has nothing to do with edges."""

from __future__ import annotations

import numpy as np
from flax import linen as nn
from jax import numpy as jnp

from equipot.graph import sum_graphs
from equipot.nn.features import species_index
from equipot.term import Atomic, Term

WAVES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -1, 0], [0, 2, 1], [1, 1, -1]])


class Collective(Term):
    """Sum over a few reciprocal vectors k of a |S(k)|^2 / k^2, S(k) = sum_i q_i exp(i k . r_i), and in systems that do not
    repeat at all the sum of q_i^2 |r_i - r_mean|^2.

    Energies are invariant under rotation, translation and permutation. They are not extensive, and no pair has its own share.
    """

    needs = ("space",)
    elements: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, graph, vectors, space):
        species, known = species_index(graph.numbers, self.elements)
        charges = self.param("charges", nn.initializers.normal(0.3), (len(self.elements),))
        q = jnp.where(graph.node_mask, charges.astype(vectors.dtype)[species], 0)
        own = graph.node_graph
        # Waves along completed rows would make the energy depend on how the axes lie.
        used = jnp.all(space.repeats[:, None] | (WAVES == 0)[None], axis=-1)
        k = 2 * jnp.pi * jnp.einsum("wa,gia->gwi", WAVES.astype(vectors.dtype), jnp.linalg.inv(space.cell))
        phases = jnp.einsum("nwi,ni->nw", k[own], space.positions)
        cosines, sines = q[:, None] * jnp.cos(phases), q[:, None] * jnp.sin(phases)
        both = cosines * sum_graphs(cosines, graph)[own] + sines * sum_graphs(sines, graph)[own]
        weights = jnp.where(used, 1 / jnp.sum(k**2, axis=-1), 0)
        waves = jnp.sum(both * weights[own], axis=-1)
        count = jnp.maximum(sum_graphs(jnp.ones_like(q), graph), 1)
        mean = sum_graphs(space.positions, graph) / count[:, None]
        spread = q**2 * jnp.sum((space.positions - mean[own]) ** 2, axis=-1)
        energy = waves + jnp.where(space.repeats.any(axis=-1)[own], 0, spread)
        return Atomic(jnp.where(graph.node_mask, energy * known, 0))
