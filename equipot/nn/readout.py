"""What every model begins and ends with: species to features, invariant features to the energy of each atom."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.edges import Edges
from equipot.nn.radial import silu


class Embedding(nn.Module):
    """A learned vector for each species, unit variance."""

    width: int
    count: int

    @nn.compact
    def __call__(self) -> Float[Array, "species width"]:
        return self.param("w", nn.initializers.normal(1.0), (self.count, self.width))


class BiasedMLP(nn.Module):
    """Layers of x @ W / sqrt(fan_in) + b, W ~ N(0, 1), b = 0 at the start; SiLU between, none after the last."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        for k, width in enumerate(self.widths):
            fan = x.shape[-1]
            w = self.param(f"w{k}", nn.initializers.normal(1.0), (fan, width))
            b = self.param(f"b{k}", nn.initializers.zeros, (width,))
            x = (silu(x) if k else x) @ (w / np.sqrt(fan)).astype(x.dtype) + b.astype(x.dtype)
        return x


def finish(term: nn.Module, network: Float[Array, "atoms"], edges: Edges, graph: Graph) -> Float[Array, "atoms"]:
    """Energy of each atom in eV: scale[s] x network + shift[s], both constants that come from the training set.

    A ``term.repulsion`` is added as it is.
    """
    count = len(term.elements)
    scale = term.variable("constants", "scale", lambda: jnp.ones(count)).value
    shift = term.variable("constants", "shift", lambda: jnp.zeros(count)).value
    energy = scale[edges.species] * network + shift[edges.species]
    if term.repulsion is not None:
        energy += term.repulsion(edges, graph, term.cutoff)
    return energy * edges.known
