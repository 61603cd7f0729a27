"""First and last layers of every network: species to features, invariant features to the energy of each atom."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.nn.radial import along_last, silu


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
            x = (silu(x) if k else x) @ (w / math.sqrt(fan)).astype(x.dtype)
            x = x + along_last(b.astype(x.dtype), x)
        return x


def check_heads(heads: tuple[str, ...]) -> None:
    """ValueError for names of heads that cannot be told apart, or that a file name with ``@HEAD`` could not give."""
    wrong = [name for name in heads if not re.fullmatch(r"[\w.+-]+", name)]
    if wrong:
        raise ValueError(f"heads: {wrong[0]!r} is not one word of letters, digits and . + - _")
    if len(set(heads)) < len(heads):
        raise ValueError(f"heads: {list(heads)} has one of them twice")


def scaled(head: nn.Module, network: Float[Array, " atoms"], species: Int[Array, " atoms"]) -> Float[Array, " atoms"]:
    """Energy of each atom in eV: scale[s] x network + shift[s], both constants [species] that come from the training set."""
    scale = head.variable("constants", "scale", lambda: jnp.ones(head.count)).value
    shift = head.variable("constants", "shift", lambda: jnp.zeros(head.count)).value
    return scale[species] * network + shift[species]
