"""What every model begins and ends with: edges to features, invariant features to the energy of each atom."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph, gather
from equipot.nn.features import species_index
from equipot.nn.radial import Radial, covalent_radii
from equipot.nn.tensor_product import spherical_harmonics
from equipot.potential import Atomic


class Edges(NamedTuple):
    """Features of atoms and slots that depend on species and geometry alone."""

    species: Int[Array, "atoms"]
    known: Float[Array, "atoms"]
    """NaN for an atom whose element the model does not know, else 1."""
    harmonics: list[Float[Array, "atoms slots m"]]
    radial: Float[Array, "atoms slots n"]
    """Basis times envelope: zero beyond the cutoff and in unused slots. What follows must map zero to zero."""


def embed_edges(
    graph: Graph, vectors: Float[Array, "atoms slots 3"], radial: Radial, cutoff: float, l_max: int, elements: tuple[int, ...]
) -> Edges:
    """Species, spherical harmonics and radial features.

    Raises:
        ValueError: no elements.
    """
    if not elements:
        raise ValueError("the model has no elements; give them in the config (model.elements) or train on data that has some")
    species, known = species_index(graph.numbers, elements)
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    radii = None
    if radial.transform is not None:
        own = jnp.asarray(covalent_radii(elements), vectors.dtype)[species]
        radii = own[:, None] + jnp.where(graph.slot_mask, gather(own, graph), own[:, None])
    features = radial(r, cutoff, radii)
    return Edges(species, known, spherical_harmonics(vectors, l_max), features)


class Embedding(nn.Module):
    """A learned vector for each species, unit variance."""

    width: int
    count: int

    @nn.compact
    def __call__(self, species: Int[Array, "atoms"]) -> Float[Array, "atoms width"]:
        return self.param("w", nn.initializers.normal(1.0), (self.count, self.width))[species]


def finish(term: nn.Module, network: Float[Array, "atoms"], latent: Float[Array, "atoms features"], edges: Edges) -> Atomic:
    """Energy of each atom in eV: scale[s] x network + shift[s], both constants that come from the training set."""
    count = len(term.elements)
    scale = term.variable("constants", "scale", lambda: jnp.ones(count)).value
    shift = term.variable("constants", "shift", lambda: jnp.zeros(count)).value
    energy = scale[edges.species] * network + shift[edges.species]
    return Atomic(energy=energy * edges.known, latent=latent)
