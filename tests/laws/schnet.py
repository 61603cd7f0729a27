"""A network of one's own that has no spherical harmonics: continuous-filter convolutions (Schütt et al., NeurIPS 2017)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from equipot.models.network import Network
from equipot.nn.features import scalars
from equipot.nn.radial import MLP
from equipot.nn.readout import BiasedMLP, scaled


class Head(nn.Module):
    """Features of each atom to an energy."""

    count: int

    @nn.compact
    def __call__(self, x, species):
        return scaled(self, BiasedMLP((4, 1), name="readout")(x)[:, 0], species)


class SchNet(Network):
    channels: int = 4
    layers: int = 2

    @nn.compact
    def __call__(self, graph, vectors):
        edges = self.embed(graph, vectors)
        avg_num_neighbors = self.variable("constants", "avg_num_neighbors", lambda: jnp.ones(())).value
        x = scalars(self.embed_species(self.channels, edges.species)[0])
        features, _ = edges.basis(edges.frequencies, edges.distances, edges.radii)
        for k in range(self.layers):
            weights = MLP((6, self.channels), name=f"filter{k}")(features)
            sums = edges.pairs.sum_to_centers(weights * edges.pairs.from_neighbors(x)) / jnp.sqrt(avg_num_neighbors)
            x += BiasedMLP((self.channels,), name=f"update{k}")(sums.astype(x.dtype))
        return self.answer(Head, x, edges, graph, x)
