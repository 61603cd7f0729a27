"""What a model knows about atoms and slots before it learns anything: species, harmonics, radial features."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph, gather
from equipot.nn.features import species_index
from equipot.nn.radial import Bessel, covalent_radii


@dataclasses.dataclass(frozen=True)
class SphericalHarmonics:
    """Y_l of the direction, in e3nn's order, |Y_l|^2 = 2l + 1."""

    def __call__(self, vectors: Float[Array, "*edges 3"], l_max: int) -> Float[Array, "*edges m"]:
        """For l = 0..l_max, one after the other."""
        return _harmonics(vectors, l_max, normalize=True)


@dataclasses.dataclass(frozen=True)
class SolidHarmonics:
    """r^l Y_l, with the distance r in Å."""

    def __call__(self, vectors: Float[Array, "*edges 3"], l_max: int) -> Float[Array, "*edges m"]:
        """For l = 0..l_max, one after the other."""
        return _harmonics(vectors, l_max, normalize=False)


def _harmonics(vectors: Array, l_max: int, normalize: bool) -> Array:
    irreps = e3nn.Irreps.spherical_harmonics(l_max)
    return e3nn.spherical_harmonics(irreps, vectors, normalize=normalize, normalization="component").array


class Edges(NamedTuple):
    """Features of atoms and slots that depend on species and geometry alone."""

    species: Int[Array, "atoms"]
    known: Float[Array, "atoms"]
    """NaN for an atom whose element the model does not know, else 1."""
    active: Bool[Array, "atoms slots"]
    """Slots with a neighbour within the cutoff: beyond it all radial weights and their derivatives are zero."""
    harmonics: Float[Array, "atoms slots m"]
    distances: Float[Array, "atoms slots"]
    """Å."""
    radii: Float[Array, "atoms slots"] | None
    """Sum of the covalent radii of both atoms (Å); None where nothing depends on it."""
    radial: Float[Array, "atoms slots n"]
    """The basis, under the envelope unless that stands apart: zero beyond the cutoff, and zero must be mapped to zero."""
    envelope: Float[Array, "atoms slots"] | None
    """Factor of what the radial network gives."""


def embed_edges(
    term: nn.Module,
    graph: Graph,
    vectors: Float[Array, "atoms slots 3"],
    harmonics: SphericalHarmonics | SolidHarmonics = SphericalHarmonics(),
) -> Edges:
    """Species, spherical harmonics and radial features, for a term with the fields of MACE and NequIP.

    Raises:
        ValueError: no elements.
    """
    radial, elements = term.radial, term.elements
    if not elements:
        raise ValueError("the model has no elements; give them in the config (model.elements) or train on data that has some")
    species, known = species_index(graph.numbers, elements)
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    radii = None
    if radial.transform is not None or term.repulsion is not None:
        table = term.variable("constants", "radii", lambda: jnp.asarray(covalent_radii(elements))).value
        own = table.astype(vectors.dtype)[species]
        radii = own[:, None] + jnp.where(graph.slot_mask, gather(own, graph), own[:, None])
    learned = None
    if isinstance(radial.basis, Bessel) and radial.basis.trainable:
        learned = term.param("frequencies", lambda _: jnp.asarray(radial.basis.frequencies(), vectors.dtype))
    features, envelope = radial(r, term.cutoff, radii, learned)
    active = graph.slot_mask & (r < term.cutoff)
    return Edges(species, known, active, harmonics(vectors, term.l_max), r, radii, features, envelope)
