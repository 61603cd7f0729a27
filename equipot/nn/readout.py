"""What every model begins and ends with: species to features, invariant features to the energy of each atom."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.nn.edges import Edges


class Embedding(nn.Module):
    """A learned vector for each species, unit variance."""

    width: int
    count: int

    @nn.compact
    def __call__(self) -> Float[Array, "species width"]:
        return self.param("w", nn.initializers.normal(1.0), (self.count, self.width))


def finish(term: nn.Module, network: Float[Array, "atoms"], edges: Edges) -> Float[Array, "atoms"]:
    """Energy of each atom in eV: scale[s] x network + shift[s], both constants that come from the training set."""
    count = len(term.elements)
    scale = term.variable("constants", "scale", lambda: jnp.ones(count)).value
    shift = term.variable("constants", "shift", lambda: jnp.zeros(count)).value
    energy = scale[edges.species] * network + shift[edges.species]
    return energy * edges.known
