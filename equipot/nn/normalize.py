"""Normalizations that bring a sum over neighbours to order one, whatever the number of neighbours."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph
from equipot.nn.edge_features import Edges
from equipot.nn.features import Features
from equipot.nn.radial_network import RadialMLP, RadialNetwork, SpeciesMLP


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Base of the normalizations of a sum over neighbours, by scaling the features that atoms send or the sums.

    The methods of this class return their input.
    """

    counts_by_species: ClassVar[bool] = False
    """Whether ``avg_num_neighbors`` is one number for each species instead of one number for all."""

    def before(self, x: Features, avg_num_neighbors: Float[Array, "..."], species: Int[Array, " atoms"] | None) -> Features:
        """Scale the features that atoms send; ``x`` has one row for each species where ``species`` is None."""
        return x

    def after(
        self, scope: Normalize, message: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph
    ) -> Features:
        """Scale the sums over neighbours; ``scope``, the calling compact module, owns the variables and submodules."""
        return message


@dataclasses.dataclass(frozen=True)
class UnitVariance(Normalization):
    """Divide each irrep by its root mean square over some training frames, computed with the initial parameters.

    A data-dependent initialisation (layer-sequential unit variance, Mishkin and Matas, arXiv:1511.06422): the divisors are
    constants afterwards. Irreps that the symmetry of a crystal nearly cancels enter the network with the size of the others.
    """

    floor: float = 0.05
    """Smallest divisor, relative to the largest of all irreps, so that irreps cancelled by symmetry stay small."""

    def after(
        self, scope: Normalize, message: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph
    ) -> Features:
        rms = scope.variable("constants", "rms", lambda: self._rms(message, graph)).value
        return {ir: value / rms[str(ir)] for ir, value in message.items()}

    def _rms(self, message: Features, graph: Graph) -> dict[str, Float[Array, ""]]:
        """Compute the root mean square of each irrep over real atoms, components and channels, at least ``floor``."""
        mask = graph.node_mask[:, None, None]
        count = jnp.maximum(jnp.sum(graph.node_mask), 1)
        mean = lambda x: jnp.sum(jnp.where(mask, x**2, 0)) / (count * x.shape[1] * x.shape[2])
        rms = {str(ir): jnp.sqrt(mean(value)) for ir, value in message.items()}
        # Frames without any pair say nothing: their messages are zero whatever they are divided by.
        largest = jnp.max(jnp.stack(list(rms.values())))
        smallest = jnp.where(largest > 0, self.floor * largest, 1.0)
        return {ir: jnp.maximum(value, smallest) for ir, value in rms.items()}


@dataclasses.dataclass(frozen=True)
class MeanNeighbors(Normalization):
    """Divide the sums over neighbours by (mean number of neighbours)^exponent, a constant of the training set."""

    exponent: float = 1.0
    """Power of the mean number of neighbours."""

    def after(
        self, scope: Normalize, message: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph
    ) -> Features:
        scale = avg_num_neighbors**self.exponent
        return {ir: value / scale for ir, value in message.items()}


@dataclasses.dataclass(frozen=True)
class SenderNeighbors(Normalization):
    """Divide the features that an atom sends by (mean number of neighbours of its species)^exponent, as NequIP since 0.16.

    A new potential has the mean over all species of the training set for every species.
    """

    counts_by_species: ClassVar[bool] = True
    exponent: float = 0.5
    """Power of the mean number of neighbours."""

    def before(self, x: Features, avg_num_neighbors: Float[Array, "..."], species: Int[Array, " atoms"] | None) -> Features:
        own = avg_num_neighbors if species is None else avg_num_neighbors[species]
        scale = (own**self.exponent)[:, None, None]
        return {ir: value / scale for ir, value in x.items()}


@dataclasses.dataclass(frozen=True)
class Density(Normalization):
    """Divide the sums over neighbours by 1 + rho, rho the learned ``density`` of the atom's neighbourhood."""

    def after(
        self, scope: Normalize, message: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph
    ) -> Features:
        scale = 1 + density(RadialMLP((1,), name="density").network_of(edges, enveloped=False), edges)
        return {ir: value / scale for ir, value in message.items()}


@dataclasses.dataclass(frozen=True)
class PairDensity(Normalization):
    """Divide the sums over neighbours by alpha + beta rho, rho a species-dependent ``density``; alpha, beta are learned."""

    hidden: int = 64
    """Hidden width of the network that gives the density."""

    def after(
        self, scope: Normalize, message: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph
    ) -> Features:
        network = SpeciesMLP((self.hidden, 1), scope.count, name="density")
        rho = density(network.network_of(edges, enveloped=False), edges)
        alpha = scope.param("alpha", nn.initializers.constant(20.0), ())
        beta = scope.param("beta", nn.initializers.zeros, ())
        scale = alpha.astype(rho.dtype) + beta.astype(rho.dtype) * rho
        return {ir: value / scale for ir, value in message.items()}


class Normalize(nn.Module):
    """Apply ``choice.after``; the variables of the normalization belong to this module."""

    choice: Normalization
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, message: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph) -> Features:
        return self.choice.after(self, message, edges, avg_num_neighbors, graph)


def density(network: RadialNetwork, edges: Edges) -> Float[Array, "atoms 1 1"]:
    """Compute the density of each atom, sum_k tanh(w_k^2) u_k over its pairs k.

    w_k is the single output of the network for a pair; u_k is the envelope if it is separate from the radial features, else 1.
    """
    rho = jnp.tanh(network(edges)[:, 0] ** 2)
    if edges.basis.envelope_is_separate:
        rho = rho * edges.basis.radial.envelope(edges.distances, edges.basis.cutoff)
    return edges.pairs.sum_to_centers(rho)[:, None, None]


@dataclasses.dataclass(frozen=True)
class RMSNorm:
    """Divide the features of each atom by their root mean square, then scale each channel by a learned factor.

    The divisor is sqrt(eps + sum_ir |x_ir|^2 / (K (2l+1)^2)), K the number of irreps and |x_ir|^2 the sum of squares over
    components and channels, as in Nequix (arXiv:2508.16067).
    """

    eps: float = 1e-12
    """Constant under the root, against division by zero."""


class Rescale(nn.Module):
    """Apply an ``RMSNorm``; the learned factors belong to this module."""

    choice: RMSNorm

    @nn.compact
    def __call__(self, x: Features) -> Features:
        square = sum(jnp.sum(value**2, axis=(1, 2)) / (len(x) * ir.dim**2) for ir, value in x.items())
        scale = jax.lax.rsqrt(square + self.choice.eps)[:, None, None]
        weights = {ir: self.param(f"w{ir}", nn.initializers.ones, value.shape[-1:]) for ir, value in x.items()}
        return {ir: value * scale * weights[ir].astype(value.dtype)[None, None] for ir, value in x.items()}
