"""How a sum over neighbours is brought to order one, whatever the number of neighbours."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.edge_features import Edges
from equipot.nn.features import Features
from equipot.nn.radial_network import PairMLP, SpeciesMLP, Stages


@dataclasses.dataclass(frozen=True)
class UnitVariance:
    """Divide each irrep by its root mean square over some training frames with the first parameters.

    A data-dependent initialisation (layer-sequential unit variance, Mishkin and Matas, arXiv:1511.06422): the divisors are
    constants from then on. Directions that a crystal's symmetry nearly cancels enter the network as strongly as the others.
    """

    floor: float = 0.05
    """Smallest divisor, as a share of the largest over the irreps: what symmetry cancels altogether stays small."""


@dataclasses.dataclass(frozen=True)
class MeanNeighbors:
    """Divide a sum over neighbours by (mean number of neighbours)^exponent, a constant of the training set."""

    exponent: float = 1.0


@dataclasses.dataclass(frozen=True)
class SenderNeighbors:
    """Divide what an atom sends by (mean number of neighbours of its species)^exponent, as NequIP does since version 0.16.

    The constants are at first the mean over all species of the training set.
    """

    exponent: float = 0.5

    def __call__(self, x: Features, avg_num_neighbors: Float[Array, " atoms"]) -> Features:
        """``x`` of atoms whose species have this many neighbours on average."""
        scale = (avg_num_neighbors**self.exponent)[:, None, None]
        return {ir: value / scale for ir, value in x.items()}


@dataclasses.dataclass(frozen=True)
class Density:
    """Divide a sum over neighbours by 1 + a learned density of the atom's neighbourhood."""


@dataclasses.dataclass(frozen=True)
class PairDensity:
    """Divide a sum over neighbours by alpha + beta x a learned density that depends on species; alpha and beta are learned."""

    hidden: int = 64
    """Width of the density's network."""


class Normalize(nn.Module):
    """Messages of order one."""

    choice: UnitVariance | MeanNeighbors | Density | PairDensity
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, message: Features, edges: Edges, avg_num_neighbors: Float[Array, ""], graph: Graph) -> Features:
        if isinstance(self.choice, UnitVariance):
            measured = self.variable("constants", "rms", lambda: self._measure(message, graph)).value
            return {ir: value / measured[str(ir)] for ir, value in message.items()}
        if isinstance(self.choice, Density):
            scale = 1 + density(PairMLP((1,), name="density").stages(edges, enveloped=False), edges)
        elif isinstance(self.choice, PairDensity):
            network = SpeciesMLP((self.choice.hidden, 1), self.count, name="density")
            rho = density(network.stages(edges, enveloped=False), edges)
            alpha = self.param("alpha", nn.initializers.constant(20.0), ())
            beta = self.param("beta", nn.initializers.zeros, ())
            scale = alpha.astype(rho.dtype) + beta.astype(rho.dtype) * rho
        else:
            scale = avg_num_neighbors**self.choice.exponent
        return {ir: value / scale for ir, value in message.items()}

    def _measure(self, message: Features, graph: Graph) -> dict[str, Float[Array, ""]]:
        mask = graph.node_mask[:, None, None]
        count = jnp.maximum(jnp.sum(graph.node_mask), 1)
        mean = lambda x: jnp.sum(jnp.where(mask, x**2, 0)) / (count * x.shape[1] * x.shape[2])
        rms = {str(ir): jnp.sqrt(mean(value)) for ir, value in message.items()}
        # Frames without any pair say nothing: their messages are zero whatever they are divided by.
        largest = jnp.max(jnp.stack(list(rms.values())))
        smallest = jnp.where(largest > 0, self.choice.floor * largest, 1.0)
        return {ir: jnp.maximum(value, smallest) for ir, value in rms.items()}


def density(network: Stages, edges: Edges) -> Float[Array, "atoms 1 1"]:
    """sum_k tanh(w_k^2), with w_k what a network with one output says of each pair, under the envelope where that is apart."""
    rho = jnp.tanh(network(edges)[:, 0] ** 2)
    if edges.basis.apart:
        rho = rho * edges.basis.radial.envelope(edges.distances, edges.basis.cutoff)
    return edges.pairs.sum(rho)[:, None, None]


@dataclasses.dataclass(frozen=True)
class RMSNorm:
    """Divide the features of each atom by their size, then scale each channel by a learned factor.

    The size is sqrt(eps + sum_ir |x_ir|^2 / (K (2l+1)^2)), K the number of irreps and |x_ir|^2 the sum over components and
    channels, as in Nequix (arXiv:2508.16067).
    """

    eps: float = 1e-12


class Rescale(nn.Module):
    """``RMSNorm`` applied."""

    choice: RMSNorm

    @nn.compact
    def __call__(self, x: Features) -> Features:
        square = sum(jnp.sum(value**2, axis=(1, 2)) / (len(x) * ir.dim**2) for ir, value in x.items())
        scale = jax.lax.rsqrt(square + self.choice.eps)[:, None, None]
        weights = {ir: self.param(f"w{ir}", nn.initializers.ones, value.shape[-1:]) for ir, value in x.items()}
        return {ir: value * scale * weights[ir].astype(value.dtype) for ir, value in x.items()}
