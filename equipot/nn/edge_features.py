"""What a model knows about atoms and pairs before it learns anything: species, harmonics, distances, radial features."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.graph import PADDING_VECTOR, Graph
from equipot.neighbors.packed import Pairs, find
from equipot.nn.radial import Radial


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
    # Sparse products fuse into one loop over vectors.
    algorithm = ("recursive", "sparse", "custom_jvp")
    return e3nn.spherical_harmonics(irreps, vectors, normalize=normalize, normalization="component", algorithm=algorithm).array


@dataclasses.dataclass(frozen=True)
class RadialFeatures:
    """Radial features as a function of what belongs to a pair: hyper-parameters only."""

    radial: Radial
    cutoff: float
    """Å."""

    def __call__(
        self, frequencies: Float[Array, " n"] | None, r: Float[Array, "*pairs"], radii: Float[Array, "*pairs"] | None
    ) -> tuple[Float[Array, "*pairs n"], Float[Array, "*pairs"] | None]:
        """The features, and the factor of the output of the radial network: the envelope where it is separate, else None.

        Features that have the envelope are zero beyond the cutoff, and zero must be mapped to zero.
        """
        return self.radial(r, self.cutoff, radii, frequencies)

    @property
    def envelope_is_separate(self) -> bool:
        """Whether the envelope multiplies the output of the radial network instead of the features."""
        return self.radial.envelope_on.is_separate


class Edges(NamedTuple):
    """Features of atoms and pairs that depend on species and geometry alone."""

    species: Int[Array, " atoms"]
    known: Float[Array, " atoms"]
    """NaN for an atom whose element the model does not know, or where pairs were lost, else 1."""
    pairs: Pairs
    """Those within the cutoff: beyond it all radial weights and their derivatives are zero."""
    vectors: Float[Array, "pairs 3"]
    """Å; ``PADDING_VECTOR`` in empty rows."""
    distances: Float[Array, " pairs"]
    """Å; far beyond the cutoff in empty rows."""
    radii: Float[Array, " pairs"] | None
    """Sum of the covalent radii of both atoms (Å); None where nothing depends on it."""
    basis: RadialFeatures
    frequencies: Float[Array, " n"] | None
    """Frequencies of a Bessel basis that learns them."""
    harmonics: Float[Array, "pairs m"] | None = None
    """Spherical harmonics of the vectors, see ``with_harmonics``; None for a network that needs none."""

    @property
    def known_harmonics(self) -> Float[Array, "pairs m"]:
        """``harmonics`` of a network that has them."""
        assert self.harmonics is not None, "with_harmonics comes first"
        return self.harmonics

    def with_harmonics(self, harmonics: SphericalHarmonics | SolidHarmonics, l_max: int) -> Edges:
        """Add the spherical harmonics of degrees 0..l_max, one after the other."""
        return self._replace(harmonics=harmonics(self.vectors, l_max))

    @property
    def dtype(self) -> jnp.dtype:
        return self.distances.dtype


def pairs_within(
    graph: Graph, vectors: Float[Array, "atoms slots 3"], cutoff: float
) -> tuple[Pairs, Float[Array, "pairs 3"], Float[Array, " pairs"]]:
    """Select the pairs within the cutoff (Å): the pairs, their vectors and distances; ``PADDING_VECTOR`` in empty rows."""
    squares = jnp.sum(jax.lax.stop_gradient(vectors) ** 2, axis=-1)
    pairs = find(graph, squares < cutoff**2)
    vectors = jnp.where(pairs.slots[:, None] < 0, jnp.asarray(PADDING_VECTOR, vectors.dtype), pairs.from_slots(vectors))
    return pairs, vectors, jnp.sqrt(jnp.sum(vectors**2, axis=-1))
