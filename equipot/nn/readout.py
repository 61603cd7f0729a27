"""What every model begins and ends with: species to features, invariant features to the energy of each atom."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph, choose_head
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


def per_head(make: Callable[..., nn.Module], heads: Sequence[str], **fields: Any) -> nn.Module:
    """The module; with heads, one with parameters of its own for each, whose answers are stacked along the first axis."""
    if not heads:
        return make(**fields)
    lifted = nn.vmap(make, in_axes=None, axis_size=len(heads), variable_axes={"params": 0}, split_rngs={"params": True})
    return lifted(**fields)


def chosen(values: Float[Array, "heads atoms"], heads: Sequence[str], graph: Graph) -> Float[Array, " atoms"]:
    """Of what all heads say, for each atom what the head of its graph says; ``values`` itself where there are no heads.

    Raises:
        ValueError: there are several heads, but the graph does not say which.
    """
    if not heads:
        return values
    if graph.head is None:
        raise ValueError(choose_head(heads))
    return jnp.take_along_axis(values, graph.head[graph.node_graph][None], axis=0)[0]


def finish(term: nn.Module, network: Float[Array, " atoms"], edges: Edges, graph: Graph) -> Float[Array, " atoms"]:
    """Energy of each atom in eV: scale[s] x network + shift[s], both constants that come from the training set.

    With ``term.heads``, every head has constants of its own. A ``term.repulsion`` is added as it is.
    """
    table = (*([len(term.heads)] if term.heads else []), len(term.elements))
    scale = term.variable("constants", "scale", lambda: jnp.ones(table)).value
    shift = term.variable("constants", "shift", lambda: jnp.zeros(table)).value
    of_atom = lambda constant: chosen(constant[..., edges.species], term.heads, graph)
    energy = of_atom(scale) * network + of_atom(shift)
    if term.repulsion is not None:
        energy += term.repulsion(edges, graph, term.cutoff)
    return energy * edges.known
