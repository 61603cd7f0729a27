"""Networks that turn what is known of a slot into the radial weights of its message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph, gather
from equipot.nn.edges import Edges
from equipot.nn.radial import MLP, Splines, silu

LAYER_NORM_FLOOR = 1e-5
"""Added to the variance under the root."""


class Stages(NamedTuple):
    """A network of every slot in two parts: its last layer is linear, so that it may act after a sum over slots."""

    inputs: list[Float[Array, "atoms slots n"]]
    hidden: Callable[..., Float[Array, "atoms slots hidden"]]
    """What enters the last layer, from ``inputs``."""
    last: Float[Array, "hidden outputs"]
    start: Int[Array, "atoms slots"] | None = None
    """Where a slot has rows of its own in ``last``, the first of them."""

    def under_envelope(self, edges: Edges) -> Stages:
        """The same times the envelope, where that stands apart; splines contain it."""
        if edges.envelope is None or self.start is not None:
            return self
        hidden = lambda *inputs: self.hidden(*inputs[:-1]) * inputs[-1]
        return Stages([*self.inputs, edges.envelope[..., None]], hidden, self.last)

    def __call__(self) -> Float[Array, "atoms slots outputs"]:
        """The network's output."""
        hidden = self.hidden(*self.inputs)
        if self.start is None:
            return hidden @ self.last
        return jnp.einsum("nkq,nkqj->nkj", hidden, self.last[self.start[..., None] + jnp.arange(hidden.shape[-1])])


class SlotMLP(MLP):
    """``MLP`` of the radial features."""

    @nn.compact
    def stages(self, edges: Edges, graph: Graph, ends: None = None) -> Stages:
        """The network of each slot; this one does not depend on its ends."""
        *weights, last = self.weights(edges.radial.shape[-1], edges.radial.dtype)

        def hidden(x: Array) -> Array:
            for w in weights:
                x = silu(x @ w)
            return x

        return Stages([edges.radial], hidden, last)


class Ends(NamedTuple):
    """What the two atoms of a slot add to the first layer of its network."""

    sender: Float[Array, "atoms hidden"]
    receiver: Float[Array, "atoms hidden"]


class EndsMLP(MLP):
    """``MLP`` of the radial features whose first layer also sees the features of both atoms."""

    @nn.compact
    def stages(self, edges: Edges, graph: Graph, ends: Ends) -> Stages:
        """The network of each slot."""
        first, *weights, last = self.weights(edges.radial.shape[-1], edges.radial.dtype)

        def hidden(x: Array, ends: Array) -> Array:
            x = silu(x @ first + ends)
            for w in weights:
                x = silu(x @ w)
            return x

        return Stages([edges.radial, _at_slots(ends, graph)], hidden, last)


class SpeciesMLP(nn.Module):
    """Dense layers with bias, layer normalisation and SiLU between them; the first also sees the species of both atoms.

    The radial network of MACE's non-linear interaction. Layer normalisation is that of Ba et al., arXiv:1607.06450.
    """

    widths: Sequence[int]
    count: int
    """Number of species."""

    @nn.compact
    def stages(self, edges: Edges, graph: Graph, ends: None = None) -> Stages:
        """The network of each slot."""
        dtype, fan = edges.radial.dtype, edges.radial.shape[-1]
        normal, zeros, ones = nn.initializers.normal(1.0), nn.initializers.zeros, nn.initializers.ones
        weights, biases, scales, shifts = [], [], [], []
        for k, width in enumerate(self.widths):
            weights.append((self.param(f"w{k}", normal, (fan, width)) / np.sqrt(fan)).astype(dtype))
            if k > 0:
                biases.append(self.param(f"b{k}", zeros, (width,)).astype(dtype))
            if k < len(self.widths) - 1:
                scales.append(self.param(f"scale{k}", ones, (width,)).astype(dtype))
                shifts.append(self.param(f"shift{k}", zeros, (width,)).astype(dtype))
            fan = width
        table = lambda name: self.param(name, normal, (self.count, self.widths[0])).astype(dtype)[edges.species]
        own = _at_slots(Ends(table("sender"), table("receiver")), graph)

        def hidden(x: Array, own: Array) -> Array:
            x = x @ weights[0] + own
            for k, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
                x = x if k == 0 else x @ weights[k] + biases[k - 1]
                x = jax.nn.silu(layer_norm(x) * scale + shift)
            # The last layer's bias is the weight of one more hidden feature, which is one.
            return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)

        return Stages([edges.radial, own], hidden, jnp.concatenate([weights[-1], biases[-1][None]]))


class SplineTable(nn.Module):
    """``Splines``, whose coefficients are constants."""

    widths: Sequence[int]
    """Only the last, the number of outputs, counts."""
    splines: Splines
    cutoff: float
    """Å."""
    count: int
    """Number of species."""

    @nn.compact
    def stages(self, edges: Edges, graph: Graph, ends: None = None) -> Stages:
        """The splines at each slot."""
        tables = self.count**2 if self.splines.pairs else 1
        shape = (tables * self.splines.rows, self.widths[-1])
        table = self.variable("constants", "table", lambda: jnp.zeros(shape)).value.astype(edges.distances.dtype)
        start, _ = self.splines(edges.distances, self.cutoff)
        if self.splines.pairs:
            start += (edges.species[:, None] * self.count + edges.species[graph.neighbors]) * self.splines.rows
        values = lambda r: self.splines(r[..., 0], self.cutoff)[1]
        return Stages([edges.distances[..., None]], values, table, start)


def layer_norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Zero mean and unit variance over the last axis."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + LAYER_NORM_FLOOR)


def _at_slots(ends: Ends, graph: Graph) -> Array:
    return gather(ends.sender, graph) + ends.receiver[:, None]
