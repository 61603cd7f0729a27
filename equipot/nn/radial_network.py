"""Radial networks: functions of the distance of a pair, and optionally of its two atoms, that give radial weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.nn.blocked_map import Function, PairArrays, blocked_map
from equipot.nn.edge_features import Edges, RadialFeatures
from equipot.nn.radial import MLP, Splines, silu

LAYER_NORM_FLOOR = 1e-5
"""Constant added to the variance in a layer normalisation."""


class RadialNetwork(NamedTuple):
    """A network evaluated for every pair, in two parts: the last layer is linear and may be applied after a sum over pairs."""

    function: Function
    """Function that computes the hidden features, the input of the last layer."""
    variables: Any
    """Parameters of ``function``."""
    others: PairArrays
    """Arrays of pairs that ``function`` takes besides the distances."""
    last: Float[Array, "hidden outputs"]
    """Matrix of the last layer."""
    start: Int[Array, " pairs"] | None = None
    """First of the rows of ``last`` that apply to each pair; None if all rows apply to every pair."""
    symmetric: bool = False
    """Whether both directed pairs of two atoms have the same weights, up to rounding."""

    def hidden(self, edges: Edges) -> Float[Array, "pairs hidden"]:
        """Compute the hidden features of all pairs."""
        return blocked_map(self.function, self.variables, edges.distances, self.others, edges.pairs, self.symmetric)

    def __call__(self, edges: Edges) -> Float[Array, "pairs outputs"]:
        """Compute the output of the network for all pairs."""
        hidden = self.hidden(edges)
        if self.start is None:
            return hidden @ self.last
        return jnp.einsum("nq,nqj->nj", hidden, self.last[self.start[..., None] + jnp.arange(hidden.shape[-1])])


def function_of_distance(basis: RadialFeatures, enveloped: bool, network: Function) -> Function:
    """Turn ``network(variables, features, others)``, a function of radial features, into a function of distances (Å).

    Args:
        basis: Map from distances to radial features. With a distance transform, the first of the arrays of pairs that the
            returned function takes is the sum of the covalent radii (Å).
        enveloped: Whether an envelope that is separate from the features multiplies the result.
        network: Function of the radial features.
    """

    def function(variables: Any, r: Array, others: PairArrays) -> Array:
        frequencies, own = variables
        radii, rest = (others[0], others[1:]) if basis.radial.transform is not None else (None, others)
        x, envelope = basis(frequencies, r, radii)
        out = network(own, x, rest)
        return out if envelope is None or not enveloped else out * envelope[:, None]

    return function


def _network(
    edges: Edges, enveloped: bool, network: Function, variables: Any, others: PairArrays, last: Array
) -> RadialNetwork:
    """Make the radial network of a function ``network`` of radial features and a last layer [hidden, outputs]."""
    radii = () if edges.basis.radial.transform is None else (edges.radii,)
    function = function_of_distance(edges.basis, enveloped, network)
    return RadialNetwork(function, (edges.frequencies, variables), (*radii, *others), last)


class RadialMLP(MLP):
    """Radial MLP that depends on the radial features alone."""

    needs_features: ClassVar[bool] = False
    """Whether the network depends on features of the atoms, so that distance and species do not determine its output."""

    @nn.compact
    def network_of(self, edges: Edges, ends: None = None, enveloped: bool = True) -> RadialNetwork:
        """Make the radial network of all pairs.

        Args:
            edges: Features of atoms and pairs.
            ends: Contributions of both atoms to the first layer; only ``EndpointMLP`` takes any.
            enveloped: Whether an envelope that is separate from the radial features multiplies the output.
        """
        *weights, last = self.weights(edges.basis.radial.basis.n, edges.dtype)

        def network(weights: list[Array], x: Array, others: PairArrays) -> Array:
            for w in weights:
                x = silu(x @ w)
            return x

        return _network(edges, enveloped, network, weights, (), last)._replace(symmetric=True)


class Endpoints(NamedTuple):
    """Contributions of each atom to the first layer of the radial networks of its pairs, before the activation."""

    sender: Float[Array, "atoms hidden"]
    """Contribution to pairs of which the atom is the neighbour."""
    receiver: Float[Array, "atoms hidden"]
    """Contribution to pairs of which the atom is the gathering atom."""


class EndpointMLP(MLP):
    """Radial MLP whose first layer also depends on features of both atoms. Described in ``RadialMLP``."""

    needs_features: ClassVar[bool] = True

    @nn.compact
    def network_of(self, edges: Edges, ends: Endpoints, enveloped: bool = True) -> RadialNetwork:
        *weights, last = self.weights(edges.basis.radial.basis.n, edges.dtype)

        def network(weights: list[Array], x: Array, others: PairArrays) -> Array:
            first, *rest = weights
            x = silu(x @ first + others[0])
            for w in rest:
                x = silu(x @ w)
            return x

        return _network(edges, enveloped, network, weights, (_of_pairs(ends, edges),), last)


class SpeciesMLP(nn.Module):
    """Dense layers with layer normalisation and SiLU between layers; the first also depends on the species of both atoms.

    The radial network of MACE's non-linear interaction. Layer normalisation is that of Ba et al., arXiv:1607.06450. The
    attribute and the method are described in ``RadialMLP``.
    """

    widths: Sequence[int]
    """Number of outputs of each layer."""
    count: int
    """Number of species."""
    needs_features: ClassVar[bool] = False

    @nn.compact
    def network_of(self, edges: Edges, ends: None = None, enveloped: bool = True) -> RadialNetwork:
        dtype, fan = edges.dtype, edges.basis.radial.basis.n
        normal, zeros, ones = nn.initializers.normal(1.0), nn.initializers.zeros, nn.initializers.ones
        weights, biases, scales, shifts = [], [], [], []
        for k, width in enumerate(self.widths):
            weights.append((self.param(f"w{k}", normal, (fan, width)) / math.sqrt(fan)).astype(dtype))
            if k > 0:
                biases.append(self.param(f"b{k}", zeros, (width,)).astype(dtype))
            if k < len(self.widths) - 1:
                scales.append(self.param(f"scale{k}", ones, (width,)).astype(dtype))
                shifts.append(self.param(f"shift{k}", zeros, (width,)).astype(dtype))
            fan = width
        table = lambda name: self.param(name, normal, (self.count, self.widths[0])).astype(dtype)[edges.species]
        own = _of_pairs(Endpoints(table("sender"), table("receiver")), edges)

        def network(variables: tuple, x: Array, others: PairArrays) -> Array:
            weights, biases, scales, shifts = variables
            x = x @ weights[0] + others[0]
            for k, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
                x = x if k == 0 else x @ weights[k] + biases[k - 1][None]
                x = jax.nn.silu(layer_norm(x) * scale[None] + shift[None])
            # The bias of the last layer is its weight on one more hidden feature that equals one.
            return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)

        variables = weights[:-1], biases[:-1], scales, shifts
        return _network(edges, enveloped, network, variables, (own,), jnp.concatenate([weights[-1], biases[-1][None]]))


class SplineTable(nn.Module):
    """Splines of the distance whose coefficients are constants, see ``radial.Splines``."""

    widths: Sequence[int]
    """Number of outputs of each layer of the tabulated network; only the last is used."""
    splines: Splines
    cutoff: float
    """Cutoff radius (Å)."""
    count: int
    """Number of species."""

    @nn.compact
    def network_of(self, edges: Edges, ends: None = None, enveloped: bool = True) -> RadialNetwork:
        """Make the splines of all pairs, see ``RadialMLP.network_of``; the envelope is part of the splines."""
        tables = self.count**2 if self.splines.pairs else 1
        shape = (tables * self.splines.rows, self.widths[-1])
        table = self.variable("constants", "table", lambda: jnp.zeros(shape)).value.astype(edges.dtype)
        start, _ = self.splines(edges.distances, self.cutoff)
        if self.splines.pairs:
            species = lambda atoms: jnp.where(atoms < 0, 0, edges.species[atoms])
            center, neighbor = species(edges.pairs.centers), species(edges.pairs.neighbors)
            start += (center * self.count + neighbor) * self.splines.rows
        splines, cutoff = self.splines, self.cutoff
        return RadialNetwork(lambda _, r, __: splines(r, cutoff)[1], (), (), table, start)


def splines_of(splines: Splines, cutoff: float, count: int) -> Callable[..., SplineTable]:
    """Return the constructor, called with ``widths`` and ``name``, of the ``SplineTable`` for ``count`` species."""
    return functools.partial(SplineTable, splines=splines, cutoff=cutoff, count=count)


def layer_norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Shift and scale to zero mean and unit variance over the last axis."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + LAYER_NORM_FLOOR)


def _of_pairs(ends: Endpoints, edges: Edges) -> Float[Array, "pairs hidden"]:
    """Sum the contributions of both atoms of each pair."""
    return edges.pairs.from_neighbors(ends.sender) + edges.pairs.from_centers(ends.receiver)
