"""What a model knows about atoms and slots before it learns anything: species, harmonics, radial features."""

from __future__ import annotations

from typing import NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.graph import Graph, gather
from equipot.nn.features import species_index
from equipot.nn.radial import Radial, covalent_radii


def spherical_harmonics(vectors: Float[Array, "*edges 3"], l_max: int) -> list[Float[Array, "*edges m"]]:
    """Y_l of the directions for l = 0..l_max, e3nn's order, |Y_l|^2 = 2l + 1."""
    irreps = e3nn.Irreps.spherical_harmonics(l_max)
    y = e3nn.spherical_harmonics(irreps, vectors, normalize=True, normalization="component").array
    return [y[..., block] for block in irreps.slices()]


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
