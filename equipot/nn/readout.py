"""What every model begins and ends with: species to features, invariant features to the energy of each atom."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import HEADS, Graph, choose_head
from equipot.nn.edge_features import Edges
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
            x = (silu(x) if k else x) @ (w / math.sqrt(fan)).astype(x.dtype) + b.astype(x.dtype)
        return x


def check_heads(heads: tuple[str, ...]) -> None:
    """ValueError for names of heads that cannot be told apart, or that a file name with ``@HEAD`` could not give."""
    wrong = [name for name in heads if not re.fullmatch(r"[\w.+-]+", name)]
    if wrong:
        raise ValueError(f"heads: {wrong[0]!r} is not one word of letters, digits and . + - _")
    if len(set(heads)) < len(heads):
        raise ValueError(f"heads: {list(heads)} has one of them twice")


def read_out(term: nn.Module, make: type[nn.Module], features: Any, edges: Edges, graph: Graph, **fields: Any) -> Array:
    """Energy of each atom (eV) from its shared features: that of the only head, or of several that of the graph's.

    ``make(count=..., **fields)`` is a head: called with the features and species [atoms] it returns energies [atoms] by way of
    ``scaled``. Variables of a single head stand beside those of ``term``. Those of several stand in one scope, ``graph.HEADS``,
    each stacked along a leading axis in the order of ``term.heads``.

    Raises:
        ValueError: there are several heads, but the graph does not say which.
    """
    fields = {**fields, "count": len(term.elements)}
    if not term.heads:
        head = make(**fields)
        nn.share_scope(term, head)
        return head(features, edges.species)
    if graph.head is None:
        raise ValueError(choose_head(term.heads))
    axes = {"params": 0, "constants": 0}
    heads = nn.vmap(make, in_axes=None, axis_size=len(term.heads), variable_axes=axes, split_rngs={"params": True})
    energies = heads(**fields, name=HEADS)(features, edges.species)
    return jnp.take_along_axis(energies, graph.head[graph.node_graph][None], axis=0)[0]


def scaled(head: nn.Module, network: Float[Array, " atoms"], species: Int[Array, " atoms"]) -> Float[Array, " atoms"]:
    """Energy of each atom in eV: scale[s] x network + shift[s], both constants [species] that come from the training set."""
    scale = head.variable("constants", "scale", lambda: jnp.ones(head.count)).value
    shift = head.variable("constants", "shift", lambda: jnp.zeros(head.count)).value
    return scale[species] * network + shift[species]


def finish(term: nn.Module, energy: Float[Array, " atoms"], edges: Edges, graph: Graph) -> Float[Array, " atoms"]:
    """Energies of the atoms (eV) with a ``term.repulsion``, as it is; NaN for an element that the term does not know."""
    if term.repulsion is not None:
        energy += term.repulsion.repel(edges.pairs, edges.distances, graph.numbers, edges.radii, term.cutoff)
    return energy * edges.known
